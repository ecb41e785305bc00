package feed

import (
	"errors"
	"strings"
	"testing"
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

// What was refused is shown, but not all of it, and not broken.
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
