package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestNotYAML: which of several files it is, and where in it, is what somebody
// who has to mend it needs. What the file says is not repeated.
func TestNotYAML(t *testing.T) {
	for content, fault := range map[string]string{
		"listen: 127.0.0.1:1\nstore:\n\turl: x\n": "line 3: found character that cannot start any token",
		"hunter2\nhunter2":                        "line 1: a key with its value is wanted here, such as listen: 127.0.0.1:8080",
		"- hunter2":                               "line 1: a key with its value is wanted here, such as listen: 127.0.0.1:8080",
		"listen: a\nlisten: b":                    `line 2: mapping key "listen" already defined at line 1`,
		"\x80\x81":                                "invalid leading UTF-8 octet",
	} {
		path := filepath.Join(t.TempDir(), "production.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := load(t, "", "--config", path)
		if want := "read configuration file: " + path + ": " + fault; err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %q", content, err, want)
		}
	}
}
