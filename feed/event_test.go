package feed

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClean(t *testing.T) {
	const limit = 20
	for _, c := range []struct {
		name  string
		draft Draft
		want  Draft // with the feed "a"
		err   error
		says  string
	}{
		{name: "empty"},
		{name: "plain", draft: Draft{Type: "note", Data: "hi"}, want: Draft{Type: "note", Data: "hi"}},
		{name: "the default type", draft: Draft{Type: "message"}},
		{name: "CR LF", draft: Draft{Data: "a\r\nb"}, want: Draft{Data: "a\nb"}},
		{name: "CR", draft: Draft{Data: "a\rb"}, want: Draft{Data: "a\nb"}},
		{name: "LF CR", draft: Draft{Data: "a\n\rb"}, want: Draft{Data: "a\n\nb"}},
		{name: "as large as can be", draft: Draft{Data: strings.Repeat("x", limit)}, want: Draft{Data: strings.Repeat("x", limit)}},
		{name: "too large by one", draft: Draft{Data: strings.Repeat("x", limit+1)}, err: ErrTooLarge, says: "21 bytes"},
		{name: "far too large", draft: Draft{Data: strings.Repeat("\x00", 2*limit+1)}, err: ErrTooLarge, says: "41 bytes"},
		{name: "two breaks", draft: Draft{Data: "123456\n\n"}, want: Draft{Data: "123456\n\n"}},
		{name: "two breaks and one byte too many", draft: Draft{Data: "1234567\n\n"}, err: ErrTooLarge, says: "21 bytes"},
		{name: "CR LF counts once", draft: Draft{Data: "123456\r\n\r\n"}, want: Draft{Data: "123456\n\n"}},
		{name: "quotes", draft: Draft{Data: strings.Repeat(`"`, limit/2)}, want: Draft{Data: strings.Repeat(`"`, limit/2)}},
		{name: "a quote too many", draft: Draft{Data: strings.Repeat(`"`, limit/2+1)}, err: ErrTooLarge, says: "22 bytes as a JSON string"},
		{name: "a backslash too many", draft: Draft{Data: strings.Repeat(`\`, limit/2) + "x"}, err: ErrTooLarge, says: "21 bytes"},
		{name: "a tab too many", draft: Draft{Data: strings.Repeat("\t", limit/2) + "x"}, err: ErrTooLarge, says: "21 bytes"},
		{name: "controls", draft: Draft{Data: "\x01\x1f\x1bxy"}, want: Draft{Data: "\x01\x1f\x1bxy"}},
		{name: "controls and one byte too many", draft: Draft{Data: "\x01\x1f\x1bxyz"}, err: ErrTooLarge, says: "21 bytes"},
		{name: "line separators", draft: Draft{Data: "\u2028\u2029\u2028xy"}, want: Draft{Data: "\u2028\u2029\u2028xy"}},
		{name: "line separators and one byte too many", draft: Draft{Data: "\u2028\u2029\u2028xyz"}, err: ErrTooLarge, says: "21 bytes"},
		{name: "others of their kind count as they are", draft: Draft{Data: "\u2027\u202a\u20ac\u2603\x7fabcdefg"}, want: Draft{Data: "\u2027\u202a\u20ac\u2603\x7fabcdefg"}},
		{name: "breaks and quotes do not add up", draft: Draft{Data: "\n\n\"\"\"\""}, want: Draft{Data: "\n\n\"\"\"\""}},
		{name: "JSON is not escaped", draft: Draft{Data: `"\u0001\"\"\"\"\"\""`, JSON: true}, want: Draft{Data: `"\u0001\"\"\"\"\"\""`, JSON: true}},
		{name: "breaks of JSON", draft: Draft{Data: "[\n\n12345]", JSON: true}, err: ErrTooLarge, says: "21 bytes"},
		{name: "NUL", draft: Draft{Data: "ab\x00"}, err: ErrInvalid, says: "byte 2"},
		{name: "not UTF-8", draft: Draft{Data: "ä\xff"}, err: ErrInvalid, says: "byte 2"},
		{name: "cut UTF-8", draft: Draft{Data: "abc\xc3"}, err: ErrInvalid, says: "byte 3"},
		{name: "a surrogate", draft: Draft{Data: "\xed\xa0\x80"}, err: ErrInvalid, says: "byte 0"},
		{name: "NUL before bad UTF-8", draft: Draft{Data: "a\x00\xff"}, err: ErrInvalid, says: "byte 1"},
		{name: "bad UTF-8 before NUL", draft: Draft{Data: "a\xff\x00"}, err: ErrInvalid, says: "byte 1"},
		{name: "the replacement character itself", draft: Draft{Data: "\uFFFD"}, want: Draft{Data: "\uFFFD"}},
		{name: "JSON", draft: Draft{Data: `{"a":[1]}`, JSON: true}, want: Draft{Data: `{"a":[1]}`, JSON: true}},
		{name: "JSON with breaks", draft: Draft{Data: "[\r\n1]", JSON: true}, want: Draft{Data: "[\n1]", JSON: true}},
		{name: "not JSON", draft: Draft{Data: `{"a"}`, JSON: true}, err: ErrInvalid, says: "JSON"},
		{name: "JSON of nothing", draft: Draft{JSON: true}, err: ErrInvalid, says: "JSON"},
		{name: "a bad type", draft: Draft{Type: "a b"}, err: ErrInvalid, says: "character 2"},
		{name: "a bad feed", draft: Draft{Feed: "a b"}, err: ErrInvalid, says: "character 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.draft.Feed == "" {
				c.draft.Feed, c.want.Feed = "a", "a"
			}
			got, err := c.draft.clean(limit)
			if c.err != nil {
				if !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v, want %v with %q", err, c.err, c.says)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
			if again, err := got.clean(limit); err != nil || again != got {
				t.Errorf("cleaned again: %+v, %v", again, err)
			}
		})
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "A", "0", "chat", "user:42@eu~x-1.log_2", strings.Repeat("a", 255)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".a", "-a", "_", ":a", "~", "a b", "a/b", "a%", "a\n", "ä", "a\x00", "a*", strings.Repeat("a", 256)} {
		if err := CheckName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", name, err)
		}
	}
}

func TestCheckType(t *testing.T) {
	for _, typ := range []string{"", "a", "message", "order/paid.v2:x_y-z", "opened", "errors", "feed", "feeds.x", "Open", strings.Repeat("a", 100)} {
		if err := CheckType(typ); err != nil {
			t.Errorf("%q: %v", typ, err)
		}
	}
	for _, typ := range []string{"open", "error", "feed.", "feed.gap", "a b", "a\nb", "a\r", "ä", "a@b", "a~", strings.Repeat("a", 101)} {
		if err := CheckType(typ); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", typ, err)
		}
	}
}

// An error shows the beginning of a refused value, as valid UTF-8.
func TestQuote(t *testing.T) {
	for s, want := range map[string]string{
		"a\n":                          `"a\n"`,
		strings.Repeat("x", 41):        `"` + strings.Repeat("x", 40) + `"…`,
		"x" + strings.Repeat("ä", 100): `"x` + strings.Repeat("ä", 19) + "\uFFFD" + `"…`,
	} {
		if got := quote(s); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestSizes compares the computed sizes with what the stream formats make of the
// data, character by character.
func TestSizes(t *testing.T) {
	slowly := func(data string) int {
		framed, quoted := 0, 0
		for _, r := range data {
			size := utf8.RuneLen(r)
			framed += size
			switch {
			case r == '\n':
				framed += 6
				quoted += 2
			case r == '"' || r == '\\' || r == '\t':
				quoted += 2
			case r < ' ' || r == '\u2028' || r == '\u2029':
				quoted += 6
			default:
				quoted += size
			}
		}
		return max(framed, quoted)
	}
	check := func(data string) {
		t.Helper()
		if got, want := max(framedSize(data), quotedSize(data)), slowly(data); got != want {
			t.Fatalf("%q counts as %d, want %d", data, got, want)
		}
	}
	// Every character beside every other kind, at every offset within a word.
	for r := range rune(0x100) {
		for offset := range 17 {
			check(strings.Repeat("x", offset) + string(r) + "x" + string(r))
			check(strings.Repeat("x", offset) + string(r) + strings.Repeat("yz", 8))
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"\n", `"`, `\`, "\t", "\x01", "\x1f", " ", "!", "x", "abcdefgh", "\x7f", "ä", "\u2027", "\u2028", "\u2029", "\u202a", "\u2128", "\u20a8", "€", "𝒶", "\ufeff"}
	for range 20_000 {
		var data strings.Builder
		for range rng.IntN(40) {
			data.WriteString(pieces[rng.IntN(len(pieces))])
		}
		check(data.String())
	}
}
