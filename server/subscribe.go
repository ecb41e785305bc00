package server

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/auth"
	"github.com/rejoin/rejoin/server/engine"
)

// subscribe answers with a stream of one feed, or with a page of it:
// GET /v1/feeds/{feed}/events.
func (s *Server) subscribe(w http.ResponseWriter, r *http.Request) {
	format := requestedFormat(r)
	if format == nil {
		s.page(w, r)
		return
	}
	request, err := s.readSubscribe(r, format)
	s.answerSubscribe(w, r, request, err)
}

// subscribeMany answers with a stream of several feeds: GET /v1/events.
func (s *Server) subscribeMany(w http.ResponseWriter, r *http.Request) {
	format := requestedFormat(r)
	if format == nil {
		s.refusals.refuse(w, r, refusal{refusedFormat, http.StatusNotAcceptable, nil})
		writeProblem(w, http.StatusNotAcceptable, "several feeds come as a stream, text/event-stream or application/x-ndjson; a page has one feed")
		return
	}
	request, err := s.readSubscribeMany(w, r, format)
	s.answerSubscribe(w, r, request, err)
}

func (s *Server) answerSubscribe(w http.ResponseWriter, r *http.Request, request subscribeRequest, err error) {
	switch {
	case err != nil:
		s.deny(w, r, err)
	case r.Method == http.MethodHead:
		writeStreamHead(w, r, request.format)
	default:
		s.serveStream(w, r, request)
	}
}

// serveStream admits a stream, subscribes it, and lets a carrier write it until the
// client leaves or the server ends it. The engine may still write it after serveStream
// has returned.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, request subscribeRequest) {
	access := accessOf(r.Context())
	if access.held && request.tellsTail {
		s.failStream(w, r, auth.ErrUnavailable) // the head needs what the client may not see yet
		return
	}
	st := s.newStream(r, request)
	if err := s.admit(st, request.cost()); err != nil {
		s.rejectFull(w, r, request.about(err))
		return
	}
	owned := true // this function has to call st.Closed
	defer func() {
		if owned {
			st.Closed(&engine.PanicError{Value: recover(), Stack: debug.Stack()})
			panic(http.ErrAbortHandler)
		}
	}()

	var blocking *feed.BlockingSubscriber // the subscriber, unless a socket carries the stream
	var subscriber *feed.Subscriber
	var err error
	carrier, onSocket := s.newSocketCarrier(r)
	if onSocket = onSocket && !access.held; access.held {
		err = auth.ErrUnavailable
	} else if onSocket {
		subscriber, err = carrier.subscribe(r.Context(), request)
	} else if blocking, err = s.hub.SubscribeAll(r.Context(), request.subscriptions); err == nil {
		subscriber = blocking.Subscriber
	}
	if err == nil {
		st.attach(request, subscriber)
		err = s.checkStream(r.Context(), request, subscriber)
	}
	if err == nil {
		err = s.rechecks.join(st, access.grant)
	}
	if err == nil && request.tellsTail {
		setTailIndex(w.Header(), subscriber.At(0).Bounds())
	}

	switch {
	case err == nil && onSocket:
		owned = false
		setStreamHead(w.Header(), r, request.format)
		carrier.carry(w, r, st)
		return
	case err == nil:
		writeStreamHead(w, r, request.format)
		err = newNetHTTPCarrier(w, r, st).carry(r.Context(), blocking)
	case access.held:
		writeStreamHead(w, r, request.format)
		err = newNetHTTPCarrier(w, r, st).carryHeld(r.Context(), request, access)
	case errors.Is(err, feed.ErrUnavailable) && st.subscriber == nil && !request.tellsTail && accepts(r, "text/event-stream"):
		writeStreamHead(w, r, request.format)
		if err = s.rechecks.join(st, access.grant); err == nil {
			err = newNetHTTPCarrier(w, r, st).carryLater(r.Context(), request)
		}
	default:
		owned = false
		st.Closed(err)
		s.failStream(w, r, request.about(err))
		return
	}
	owned = false
	st.Closed(err)
	if !endsCleanly(err) {
		panic(http.ErrAbortHandler)
	}
}

// checkStream returns an error if there is nothing to stream.
func (s *Server) checkStream(ctx context.Context, request subscribeRequest, subscriber *feed.Subscriber) error {
	err := request.check(subscriber)
	if !errors.Is(err, errUnwritten) {
		return err
	}
	// The subscriber's bounds may be older than the answer to the first publish, and
	// the client would not come back.
	p, storeErr := s.hub.Read(ctx, subscriber.At(0).Feed(), 0, feed.Limit{Events: 1, Bytes: 1})
	switch {
	case storeErr != nil:
		return storeErr
	case p.Last == 0 || p.Closed:
		return err
	}
	return nil
}

// failStream answers a request for a stream with an error. A status of 5xx would stop
// a browser's EventSource, so that gets an empty stream instead.
func (s *Server) failStream(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status < http.StatusInternalServerError || !accepts(r, "text/event-stream") {
		s.writeError(w, r, err)
		return
	}
	s.refusals.refuse(w, r, refusalOf(err))
	answerRetryLater(w, r, status, "")
}
