package feed

// jsonDepth is how deep encoding/json allows arrays and objects to be nested.
const jsonDepth = 10_000

// ValidJSON reports whether s is one JSON value, like [encoding/json.Valid], in a
// fraction of the time: that calls a function for each byte.
func ValidJSON[S string | []byte](s S) bool {
	i := skipSpace(s, 0)
	i = skipValue(s, i, 0)
	return i >= 0 && skipSpace(s, i) == len(s)
}

func skipSpace[S string | []byte](s S, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\n' || s[i] == '\r' || s[i] == '\t') {
		i++
	}
	return i
}

// skipValue returns the end of the JSON value that begins at i, or -1 if there is
// none. The functions below do the same for parts of values.
func skipValue[S string | []byte](s S, i, depth int) int {
	if i >= len(s) {
		return -1
	}
	switch s[i] {
	case '"':
		return skipString(s, i)
	case '{':
		return skipMembers(s, i, depth+1, '}')
	case '[':
		return skipMembers(s, i, depth+1, ']')
	case 't':
		return skipWord(s, i, "true")
	case 'f':
		return skipWord(s, i, "false")
	case 'n':
		return skipWord(s, i, "null")
	}
	return skipNumber(s, i)
}

// skipMembers skips an object or an array, which ends with end.
func skipMembers[S string | []byte](s S, i, depth int, end byte) int {
	if depth > jsonDepth {
		return -1
	}
	i = skipSpace(s, i+1)
	if i < len(s) && s[i] == end {
		return i + 1
	}
	for {
		if end == '}' {
			if i >= len(s) || s[i] != '"' {
				return -1
			}
			if i = skipString(s, i); i < 0 {
				return -1
			}
			if i = skipSpace(s, i); i >= len(s) || s[i] != ':' {
				return -1
			}
			i = skipSpace(s, i+1)
		}
		if i = skipValue(s, i, depth); i < 0 {
			return -1
		}
		i = skipSpace(s, i)
		switch {
		case i >= len(s):
			return -1
		case s[i] == end:
			return i + 1
		case s[i] != ',':
			return -1
		}
		i = skipSpace(s, i+1)
	}
}

func skipString[S string | []byte](s S, i int) int {
	for i++; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c == '\\':
			if i = skipEscape(s, i); i < 0 {
				return -1
			}
		}
	}
	return -1
}

// skipEscape returns the last byte of the escape that begins at i.
func skipEscape[S string | []byte](s S, i int) int {
	if i++; i >= len(s) {
		return -1
	}
	switch s[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i
	case 'u':
		if i+4 >= len(s) {
			return -1
		}
		for _, c := range []byte(s[i+1 : i+5]) {
			if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
				return -1
			}
		}
		return i + 4
	}
	return -1
}

func skipWord[S string | []byte](s S, i int, word string) int {
	if len(s)-i < len(word) || string(s[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

func skipNumber[S string | []byte](s S, i int) int {
	if s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == '0' {
		i++
	} else if i = skipDigits(s, i); i < 0 {
		return -1
	}
	if i < len(s) && s[i] == '.' {
		if i = skipDigits(s, i+1); i < 0 {
			return -1
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		i = skipDigits(s, i)
	}
	return i
}

// skipDigits skips digits, at least one.
func skipDigits[S string | []byte](s S, i int) int {
	from := i
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		i++
	}
	if i == from {
		return -1
	}
	return i
}
