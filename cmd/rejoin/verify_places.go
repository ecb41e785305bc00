package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rejoin/rejoin/feed"
)

// place is where a subscriber stands in one feed.
type place struct {
	feed   string
	cursor feed.Cursor // of the last event printed
	known  bool        // the cursor is
	closed bool        // all of the feed has been printed
}

// places is where a subscriber stands in all its feeds. The wire form of that is the
// cursor of the subscription: a number, or for several feeds chat=42,news=7.
type places struct {
	all  []place
	many bool // even of one feed, the wire form says which
}

// newPlaces returns the places before anything is known of the feeds. The error
// is a usage error.
func newPlaces(names []string) (places, error) {
	if len(names) == 0 {
		return places{}, usageError{errors.New("--feed: which? name one, or several with commas between them")}
	}
	p := places{many: len(names) > 1}
	for _, name := range names {
		if err := feed.CheckName(name); err != nil {
			return places{}, usageError{fmt.Errorf("--feed: %w", err)}
		}
		p.all = append(p.all, place{feed: name})
	}
	return p, nil
}

// parse reads a cursor of the subscription, by the index of the feed.
func (p *places) parse(cursor string) (map[int]feed.Cursor, error) {
	if !p.many {
		c, err := feed.ParseCursor(cursor)
		return map[int]feed.Cursor{0: c}, err
	}
	read := make(map[int]feed.Cursor, len(p.all))
	for part := range strings.SplitSeq(cursor, ",") {
		name, number, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("the cursor of several feeds is like chat=42,news=7, not %.100q", cursor)
		}
		i := len(read) // servers keep to the order
		if i >= len(p.all) || p.all[i].feed != name {
			i = p.index(name)
		}
		if i < 0 {
			return nil, fmt.Errorf("it names %.100q, which is not followed", name)
		}
		if _, twice := read[i]; twice {
			return nil, fmt.Errorf("it names %s twice", name)
		}
		c, err := feed.ParseCursor(number)
		if err != nil {
			return nil, fmt.Errorf("of %s: %w", name, err)
		}
		read[i] = c
	}
	return read, nil
}

// index returns which feed has the name, -1 if it is not followed.
func (p *places) index(name string) int {
	return slices.IndexFunc(p.all, func(f place) bool { return f.feed == name })
}

// closed says whether nothing more will come of any feed.
func (p *places) closed() bool {
	return !slices.ContainsFunc(p.all, func(f place) bool { return !f.closed })
}

// cursor returns what is known in wire form.
func (p *places) cursor() string {
	var parts []string
	for _, f := range p.all {
		switch {
		case !f.known:
		case p.many:
			parts = append(parts, f.feed+"="+f.cursor.String())
		default:
			parts = append(parts, f.cursor.String())
		}
	}
	return strings.Join(parts, ",")
}

// String says where the tail stands to people.
func (p places) String() string {
	if p.many {
		return p.cursor()
	}
	return "event " + p.cursor()
}

func (p *places) names() string {
	var names []string
	for _, f := range p.all {
		names = append(names, f.feed)
	}
	return strings.Join(names, ",")
}
