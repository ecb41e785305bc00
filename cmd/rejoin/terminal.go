package main

import (
	"fmt"
	"io"
	"os"
	"unicode"
	"unicode/utf8"
)

// harmless returns a writer that shows what strangers wrote, if w is a terminal.
// A terminal obeys control characters: they set its title, change what has been
// printed, and in some answer for the one who types. To anything else, which is
// for programs, every byte goes as it is.
func harmless(w io.Writer) io.Writer {
	if file, ok := w.(*os.File); ok && isTerminal(file) {
		return terminal{w}
	}
	return w
}

func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// terminal shows control characters, and what is not UTF-8, as \x1b or \u202e.
// Each Write has to be of whole characters.
type terminal struct{ io.Writer }

func (t terminal) Write(p []byte) (int, error) {
	if _, err := t.Writer.Write(appendVisible(nil, p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// appendVisible appends text as a terminal may have it.
func appendVisible(dst, text []byte) []byte {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = fmt.Appendf(dst, `\x%02x`, text[0])
		case !obeyed(r):
			dst = append(dst, text[:size]...)
		case r < 0x80:
			dst = fmt.Appendf(dst, `\x%02x`, r)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		}
		text = text[size:]
	}
	return dst
}

// obeyed reports whether a terminal does something else with r than to show it,
// or than to move to the next tab or line: the control characters of ASCII and
// Latin-1, those that turn the direction of text around, other line ends.
func obeyed(r rune) bool {
	switch {
	case r == '\t', r == '\n':
		return false
	case unicode.IsControl(r), r == '\u2028', r == '\u2029':
		return true
	}
	return r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}

// showsColours reports whether what is written to w may have colours. See
// https://no-color.org.
func showsColours(w io.Writer) bool {
	_, ok := w.(terminal)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// faint is the colour of what matters less.
const faint = "2"

// colourOf returns a colour for the nth of several things, of those that can be
// read on a light and on a dark ground.
func colourOf(n int) string {
	colours := [...]string{"36", "35", "32", "33", "34"} // cyan, magenta, green, yellow, blue
	return colours[max(n, 0)%len(colours)]
}

// appendColoured appends text as a terminal may have it, in a colour.
func appendColoured(dst []byte, colour, text string) []byte {
	dst = append(dst, "\x1b["+colour+"m"...)
	dst = appendVisible(dst, []byte(text))
	return append(dst, "\x1b[0m"...)
}
