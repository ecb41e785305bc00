package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestAppendVisible(t *testing.T) {
	for text, want := range map[string]string{
		"plain \ttabs\nand lines\n":       "plain \ttabs\nand lines\n",
		"Grüße, 世界, שלום\u200f, 👩\u200d🚀": "Grüße, 世界, שלום\u200f, 👩\u200d🚀",
		"\x1b]0;title\x07\x1b[2J":         `\x1b]0;title\x07\x1b[2J`,
		"over\rwritten\b\x7f\x00\v\f":     `over\x0dwritten\x08\x7f\x00\x0b\x0c`,
		"\u009b31m\u0080\u009f\u00a0":     `\u009b31m\u0080\u009f` + "\u00a0",
		"\x9b31m\xff\xc0\x80":             `\x9b31m\xff\xc0\x80`,
		"a\u202eb\u2066c\u2069\u2028":     `a\u202eb\u2066c\u2069\u2028`,
		"cut \xe4\xb8":                    `cut \xe4\xb8`,
		"\ufffd":                          "\ufffd",
	} {
		if got := string(appendVisible(nil, []byte(text))); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}

// TestHarmless: only output to a terminal is escaped.
func TestHarmless(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if harmless(file) != file || harmless(w) != w {
		t.Error("a file or a pipe is taken for a terminal")
	}
	var out bytes.Buffer
	if n, err := (terminal{&out}).Write([]byte("\x1b!")); n != 2 || err != nil || out.String() != `\x1b!` {
		t.Errorf("%d, %v, %q", n, err, out.String())
	}
}
