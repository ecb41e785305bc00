package server

import "strings"

// depthMost is how deep arrays and objects may be nested in data. Some parsers
// give up at about 500 levels, and with an event they would refuse the whole
// page that it is part of: whoever may publish could stop all who read.
const depthMost = 500

// checkDepth returns an error if JSON is nested too deep.
func checkDepth(text string) error {
	if strings.Count(text, "[")+strings.Count(text, "{") <= depthMost {
		return nil // that can be no deeper, and counting is quick
	}
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > depthMost {
				return invalid("the data is JSON that is nested deeper than %d levels", depthMost)
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return nil
}
