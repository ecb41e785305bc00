package postgres

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/rejoin/rejoin/feed"
)

// Nodes and the functions of the schema notify on one channel. LISTEN sees only what
// happens in its own database, so that the name needs no more.
const channel = "rejoin"

// What a payload is about is its first word. A new version must still read the
// payloads of the one before, and ignore those that it does not know.
const (
	kindGrew   = "grew"   // node, then feed and last id of each feed that a node appended to
	kindLook   = "look"   // node: it appended to more feeds than a payload has room for
	kindAppend = "append" // feed: a transaction in SQL appended to it
	kindQueue  = "queue"  // a transaction in SQL queued events
	kindSignal = "signal" // node, number, piece, pieces, a part of a signal in base64
	kindHere   = "here"   // node: it listens
)

// noNode stands for the node in the news of events that no node's hub knows yet.
const noNode = "-"

const (
	maxPayload = 7999 // bytes
	// With the words before it, a piece of a signal fits a payload.
	pieceBytes = 5850
)

// growth is the feeds that grew, and their last ids.
type growth map[string]feed.ID

// payload returns the news of the growth for the other nodes.
func (g growth) payload(node string) string {
	b := make([]byte, 0, 256)
	b = append(append(append(b, kindGrew...), ' '), node...)
	for name, last := range g {
		b = append(append(append(b, ' '), name...), ' ')
		if b = last.Append(b); len(b) > maxPayload {
			return kindLook + " " + node
		}
	}
	return string(b)
}

// parseGrowth reads feeds and last ids, up to the first that cannot be read.
func parseGrowth(words []string) growth {
	g := make(growth, len(words)/2)
	for ; len(words) >= 2; words = words[2:] {
		last, err := feed.ParseCursor(words[1])
		if err != nil {
			break
		}
		g[words[0]] = max(g[words[0]], last)
	}
	return g
}

// signalPieces returns the payloads of a signal. The node and the number tell its pieces
// from those of others, so that Postgres, which sends equal payloads of a transaction
// once, sends all of them.
func signalPieces(node string, number uint64, signal []byte) []string {
	count := max(1, (len(signal)+pieceBytes-1)/pieceBytes)
	pieces := make([]string, count)
	for i := range pieces {
		n := min(pieceBytes, len(signal))
		pieces[i] = strings.Join([]string{
			kindSignal, node, strconv.FormatUint(number, 10), strconv.Itoa(i), strconv.Itoa(count),
			base64.StdEncoding.EncodeToString(signal[:n]),
		}, " ")
		signal = signal[n:]
	}
	return pieces
}

// maxSignal is the most bytes of a signal that an assembly takes.
const maxSignal = 4 << 20

// assembly puts signals together. The pieces of one come in order and with no other
// payload in between, because one transaction sends them.
type assembly struct {
	node, number string
	next, count  int
	signal       []byte
}

// add takes the words of a payload, and returns the signal that they complete.
func (a *assembly) add(words []string) (signal []byte, ok bool) {
	if len(words) == 4 {
		words = append(words, "") // the signal is empty
	}
	if len(words) != 5 {
		return nil, false
	}
	piece, err := strconv.Atoi(words[2])
	count, err2 := strconv.Atoi(words[3])
	part, err3 := base64.StdEncoding.DecodeString(words[4])
	if err != nil || err2 != nil || err3 != nil {
		return nil, false
	}
	if piece == 0 {
		*a = assembly{node: words[0], number: words[1], count: count}
	}
	if a.node != words[0] || a.number != words[1] || a.count != count || a.next != piece || len(a.signal)+len(part) > maxSignal {
		*a = assembly{}
		return nil, false
	}
	a.signal, a.next = append(a.signal, part...), a.next+1
	if a.next < a.count {
		return nil, false
	}
	signal = a.signal
	*a = assembly{}
	if signal == nil {
		signal = []byte{}
	}
	return signal, true
}
