package feed

import (
	"fmt"
	"math/bits"
	"strings"
)

// mostGrowth is the most bytes that a byte of data becomes on the wire: a line
// break becomes LF, with "data: " before the next line.
const mostGrowth = 7

// checkSize returns an error if the data, with LF for its line breaks, is larger
// than limit in the longest form in which a subscriber may ask for it. Many clients
// fail at lines of 64 KiB, come back, and meet the same line again.
func (d Draft) checkSize(limit int) error {
	if len(d.Data) <= limit/mostGrowth {
		return nil
	}
	framed, quoted := framedSize(d.Data), 0
	if !d.JSON { // an envelope has JSON as it is
		quoted = quotedSize(d.Data)
	}
	switch {
	case max(framed, quoted) <= limit:
		return nil
	case max(framed, quoted) == len(d.Data):
		return fmt.Errorf("%w: the data has %d bytes, the limit is %d", ErrTooLarge, len(d.Data), limit)
	case framed >= quoted:
		return fmt.Errorf("%w: the data has %d bytes with each line break counted as 7, as an event stream carries it; the limit is %d", ErrTooLarge, framed, limit)
	}
	return fmt.Errorf("%w: the data has %d bytes as a JSON string, which it is in an envelope (quotes, backslashes, tabs and line breaks take 2 bytes, other control characters 6); the limit is %d", ErrTooLarge, quoted, limit)
}

// framedSize is how long data is in the lines of an event stream.
func framedSize(data string) int { return len(data) + (mostGrowth-1)*strings.Count(data, "\n") }

// quotedSize is how long data is as a JSON string, without the quotes around it. The
// string escapes U+2028 and U+2029, and otherwise no more than it has to.
func quotedSize(data string) int {
	breaks, tabs := strings.Count(data, "\n"), strings.Count(data, "\t")
	short := breaks + tabs + strings.Count(data, `"`) + strings.Count(data, `\`)
	controls, separators := countRare(data)
	long := controls - breaks - tabs
	return len(data) + short*(len(`\n`)-1) + long*(len(`\u0001`)-1) + separators*(len(`\u2028`)-len("\u2028"))
}

// countRare returns how many bytes of data are below space, and how many
// characters are U+2028 or U+2029. It takes eight bytes at a time, and looks closely at
// those that have the first byte of these characters among them.
func countRare(data string) (controls, separators int) {
	const ones, low, highest = 0x0101010101010101, 0x7f7f7f7f7f7f7f7f, 0x8080808080808080
	for ; len(data) >= 8; data = data[8:] {
		w := uint64(data[0]) | uint64(data[1])<<8 | uint64(data[2])<<16 | uint64(data[3])<<24 |
			uint64(data[4])<<32 | uint64(data[5])<<40 | uint64(data[6])<<48 | uint64(data[7])<<56
		// A byte of the sum is below 0x80 only if that of w, without its highest
		// bit, is below space.
		controls += bits.OnesCount64(^(w&low + ones*(0x80-' ') | w) & highest)
		if first := w ^ ones*0xE2; (first-ones)&^first&highest != 0 { // a byte of it is 0
			separators += countSeparators(data, 8)
		}
	}
	for i := range len(data) {
		if data[i] < ' ' {
			controls++
		}
	}
	return controls, separators + countSeparators(data, len(data))
}

// countSeparators counts the separators that begin within the first n bytes.
func countSeparators(data string, n int) (count int) {
	for i := range n {
		if data[i] == 0xE2 && (strings.HasPrefix(data[i:], "\u2028") || strings.HasPrefix(data[i:], "\u2029")) {
			count++
		}
	}
	return count
}
