package feed

import (
	"encoding/json"
	"strings"
	"testing"
)

// jsonSamples are valid JSON and near misses.
var jsonSamples = []string{
	``, ` `, `null`, `nul`, `nulll`, `true`, `tru`, `false`, `False`, `"`, `""`, `"a`, `"a"`, `"\`, `"\"`, `"\""`, `"\x"`, `"\/\b\f\n\r\t\\"`,
	`"\u12"`, `"\u12aF"`, `"\u12aG"`, `"\u12a`, "\"\x1f\"", "\"\x7f\"", "\"\xff\"", "\"\n\"", `'a'`,
	`0`, `-`, `-0`, `+1`, `01`, `-01`, `1.`, `.1`, `1.5`, `1.e1`, `1e`, `1e+`, `1e+5`, `1E-05`, `1e5.5`, `0x1`, `1 2`, `--1`, `0e0`,
	`[]`, `[`, `]`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `[1,2]`, ` [ 1 , [ ] , { } ] `, `[1}`, `[]]`,
	`{}`, `{`, `}`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{"a":1,"b":[{}]}`, `{a:1}`, `{1:1}`, `{"a" 1}`, `{"a"::1}`, `{"a":1 "b":2}`, ` { "a" : 1 } `, `{"a":1]`,
	"\ufeff{}", "{}\x00", "\v1", "1\t\r\n ",
	strings.Repeat("[", jsonDepth) + strings.Repeat("]", jsonDepth),
	strings.Repeat("[", jsonDepth+1) + strings.Repeat("]", jsonDepth+1),
	strings.Repeat(`{"a":`, jsonDepth) + "1" + strings.Repeat("}", jsonDepth),
	strings.Repeat(`{"a":`, jsonDepth+1) + "1" + strings.Repeat("}", jsonDepth+1),
}

func TestValidJSON(t *testing.T) {
	for _, s := range jsonSamples {
		checkValidJSON(t, s)
	}
}

// FuzzValidJSON compares ValidJSON with json.Valid.
func FuzzValidJSON(f *testing.F) {
	for _, s := range jsonSamples {
		if len(s) < 100 {
			f.Add(s)
		}
	}
	f.Fuzz(checkValidJSON)
}

func checkValidJSON(t *testing.T, s string) {
	want := json.Valid([]byte(s))
	if got := ValidJSON(s); got != want {
		t.Errorf("%.60q: got %t, want %t", s, got, want)
	}
	if got := ValidJSON([]byte(s)); got != want {
		t.Errorf("the bytes %.60q: got %t, want %t", s, got, want)
	}
}

func BenchmarkValidJSON(b *testing.B) {
	s := `{"kind":"message.edited","at":1730000000000,"tags":["a","b"],"data":{"text":"` + strings.Repeat("lorem ipsum ", 15) + `"}}`
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		if !ValidJSON(s) {
			b.Fatal("it is valid")
		}
	}
}
