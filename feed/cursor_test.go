package feed

import (
	"errors"
	"math"
	"reflect"
	"testing"
	"time"
)

func TestLocate(t *testing.T) {
	var (
		kept    = Bounds{First: 1, Last: 10}
		trimmed = Bounds{First: 5, Last: 10}
		gone    = Bounds{First: 11, Last: 10} // all trimmed
		full    = Bounds{First: 1, Last: MaxID}
	)
	gap := func(after ID, resumes ID, reason GapReason) *Gap { return &Gap{after, resumes, reason} }
	for _, c := range []struct {
		name  string
		from  From
		b     Bounds
		found ID
		want  ID
		gap   *Gap
	}{
		{"now, unwritten", From{}, Unwritten, 0, 0, nil},
		{"now", From{}, kept, 0, 10, nil},
		{"now, all trimmed", From{}, gone, 0, 10, nil},
		{"now, full", From{}, full, 0, MaxID, nil},

		{"start, unwritten", FromStart(), Unwritten, 0, 0, nil},
		{"start", FromStart(), kept, 0, 0, nil},
		{"start, trimmed", FromStart(), trimmed, 0, 4, nil},
		{"start, all trimmed", FromStart(), gone, 0, 10, nil},

		{"newest, unwritten", FromNewest(3), Unwritten, 0, 0, nil},
		{"newest 0", FromNewest(0), kept, 0, 10, nil},
		{"newest 3", FromNewest(3), kept, 0, 7, nil},
		{"newest 9", FromNewest(9), kept, 0, 1, nil},
		{"newest 10", FromNewest(10), kept, 0, 0, nil},
		{"newest 11", FromNewest(11), kept, 0, 0, nil},
		{"newest, all there is of a trimmed feed", FromNewest(6), trimmed, 0, 4, nil},
		{"newest, more than a trimmed feed keeps", FromNewest(7), trimmed, 0, 4, nil},
		{"newest, less than a trimmed feed keeps", FromNewest(5), trimmed, 0, 5, nil},
		{"newest, all trimmed", FromNewest(3), gone, 0, 10, nil},
		{"newest, most", FromNewest(math.MaxUint64), kept, 0, 0, nil},
		{"newest, most of none", FromNewest(math.MaxUint64), Unwritten, 0, 0, nil},
		{"newest of full", FromNewest(1), full, 0, MaxID - 1, nil},

		{"time, unwritten", FromTime(time.Time{}), Unwritten, 0, 0, nil},
		{"time, found", FromTime(time.Time{}), kept, 4, 4, nil},
		{"time, none so late", FromTime(time.Time{}), kept, 10, 10, nil},
		{"time, trimmed since", FromTime(time.Time{}), trimmed, 2, 4, nil},
		{"time, all trimmed since", FromTime(time.Time{}), gone, 2, 10, nil},
		{"time, past the end", FromTime(time.Time{}), kept, 12, 10, nil},

		{"after 0, unwritten", FromCursor(0), Unwritten, 0, 0, nil},
		{"after 1, unwritten", FromCursor(1), Unwritten, 0, 1, gap(1, 1, Ahead)},
		{"after 0", FromCursor(0), kept, 0, 0, nil},
		{"after 9", FromCursor(9), kept, 0, 9, nil},
		{"after the last", FromCursor(10), kept, 0, 10, nil},
		{"after one too many", FromCursor(11), kept, 0, 11, gap(11, 11, Ahead)},
		{"after the largest", FromCursor(MaxID), kept, 0, MaxID, gap(MaxID, 11, Ahead)},
		{"after more than the largest", FromCursor(math.MaxUint64), kept, 0, math.MaxUint64, gap(math.MaxUint64, 11, Ahead)},
		{"after the largest, full", FromCursor(MaxID), full, 0, MaxID, nil},
		{"after 0, trimmed", FromCursor(0), trimmed, 0, 0, gap(0, 5, Trimmed)},
		{"after 3, trimmed", FromCursor(3), trimmed, 0, 3, gap(3, 5, Trimmed)},
		{"after the last that is trimmed", FromCursor(4), trimmed, 0, 4, nil},
		{"after 0, all trimmed", FromCursor(0), gone, 0, 0, gap(0, 11, Trimmed)},
		{"after 9, all trimmed", FromCursor(9), gone, 0, 9, gap(9, 11, Trimmed)},
		{"after the last, all trimmed", FromCursor(10), gone, 0, 10, nil},
		{"after one too many, all trimmed", FromCursor(11), gone, 0, 11, gap(11, 11, Ahead)},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, gap := locate(c.from, c.b, c.found)
			if got != c.want || !reflect.DeepEqual(gap, c.gap) {
				t.Errorf("got %d, %+v; want %d, %+v", got, gap, c.want, c.gap)
			}
			if gap != nil && gapAfter(gap.Cursor(), c.b) != nil {
				t.Errorf("behind the gap %+v there is another", gap)
			}
			if from := c.from.kind; gap != nil && from != fromCursor {
				t.Errorf("a start of kind %d found a gap", from)
			}
		})
	}
}

func TestParseCursor(t *testing.T) {
	for s, want := range map[string]ID{"0": 0, "1": 1, "42": 42, "9223372036854775807": MaxID} {
		if got, err := ParseCursor(s); err != nil || got != want || got.String() != s {
			t.Errorf("%q: got %d, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", " ", "-1", "+1", "01", "00", "007", "1 ", " 1", "1.0", "1e3", "0x1", "1_000", "x", "١",
		"9223372036854775808", "18446744073709551615", "18446744073709551616", "99999999999999999999999999",
	} {
		if got, err := ParseCursor(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %d, %v, want ErrInvalid", s, got, err)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	for _, s := range []string{"", "0", "1", "007", "+1", "-1", "9223372036854775807", "9223372036854775808", "1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCursor(s)
		switch {
		case err != nil && !errors.Is(err, ErrInvalid):
			t.Errorf("%q: the error %v does not wrap ErrInvalid", s, err)
		case err == nil && (c.String() != s || c > MaxID):
			t.Errorf("%q was accepted as %v", s, c)
		}
	})
}

func TestParseFrom(t *testing.T) {
	half := time.Date(2026, 1, 31, 9, 30, 0, 500_000_000, time.UTC)
	for s, want := range map[string]From{
		"now":                           {},
		"start":                         FromStart(),
		"-0":                            FromNewest(0),
		"-25":                           FromNewest(25),
		"-9223372036854775807":          FromNewest(math.MaxInt64),
		"2026-01-31T09:30:00.5Z":        FromTime(half),
		"2026-01-31T10:30:00.500+01:00": FromTime(half),
	} {
		got, err := ParseFrom(s)
		if err != nil || got.kind != want.kind || got.newest != want.newest || !got.time.Equal(want.time) {
			t.Errorf("%q: got %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "Now", "now ", "begin", "0", "5", "-", "--5", "-05", "- 5", "-5.5", "-9223372036854775808",
		"2026-01-31", "2026-01-31T09:30:00", "2026-01-31 09:30:00Z", "2026-02-30T09:30:00Z", "2026-01-31T10:30:00 01:00",
	} {
		if got, err := ParseFrom(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %+v, %v, want ErrInvalid", s, got, err)
		}
	}
}
