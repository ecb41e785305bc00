package server_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sightings holds the promises of the document that were seen.
type sightings map[string]bool

// promised returns everything that has to be seen. Members of bodies are not
// included, except for the kinds of control events.
func (d document) promised(operations []operation) (all []string) {
	for _, op := range operations {
		for name := range op.parameters {
			all = append(all, op.id+" with "+name)
		}
		for status, r := range op.responses {
			answer := op.id + " " + status
			all = append(all, answer)
			headers, _ := r["headers"].(object)
			for name := range headers {
				all = append(all, answer+" with "+name)
			}
			content, _ := r["content"].(object)
			for media := range content {
				all = append(all, answer+" as "+media)
			}
		}
		for media := range op.body {
			all = append(all, op.id+" of "+media)
		}
	}
	for kind := range d.controls() {
		all = append(all, kind+" in "+streamMedia, kind+" in "+linesMedia)
	}
	return all
}

// controls returns the schemas of control events as lines, by type.
func (d document) controls() map[string]object {
	all := map[string]object{}
	line := d.resolve(object{"$ref": "#/components/schemas/Line"})
	for _, choice := range line["anyOf"].([]any) {
		s := d.resolve(choice)
		properties := s["properties"].(object)
		if kind, ok := d.resolve(properties["type"])["const"].(string); ok {
			all[kind] = s
		}
	}
	return all
}

// checkRequest checks the request against the document, unless the server has to
// refuse it.
func (d document) checkRequest(t *testing.T, op operation, c call, seen sightings) {
	t.Helper()
	path, query, _ := strings.Cut(c.path, "?")
	inPath := regexp.MustCompile(`\\\{(\w+)\\\}`).ReplaceAllString(regexp.QuoteMeta(op.path), `(?P<$1>[^/]+)`)
	names := regexp.MustCompile("^" + inPath + "$")
	found := names.FindStringSubmatch(path)
	if found == nil {
		t.Fatalf("%s is not at %s", path, op.path)
	}
	given := map[string]string{}
	for i, name := range names.SubexpNames()[1:] {
		given["path "+name] = found[i+1]
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	for name := range values {
		given["query "+name] = values.Get(name)
	}
	header := http.Header{}
	addHeader(header, strings.TrimPrefix(c.header, "\n"))
	for name := range header {
		// OpenAPI describes these headers by the content.
		if name != "Accept" && name != "Content-Type" && name != "Content-Encoding" {
			given["header "+name] = header.Get(name)
		}
	}
	if c.status >= 400 {
		return
	}
	for name, value := range given {
		p := op.parameters[strings.Replace(name, "Last-Event-Id", "Last-Event-ID", 1)]
		if p == nil {
			t.Errorf("the parameter %s is not documented", name)
			continue
		}
		seen[fmt.Sprint(op.id, " with ", p["in"], " ", p["name"])] = true
		if err := d.check(p["schema"], d.parse(p, value)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if op.body != nil {
		d.checkRequestBody(t, op, header.Get("Content-Type"), c.body, seen)
	}
}

// parse turns the text of a parameter into a value of its schema.
func (d document) parse(p object, value string) any {
	switch d.resolve(p["schema"])["type"] {
	case "integer":
		return json.Number(value)
	case "boolean":
		return value == "true"
	case "array":
		var all []any
		for item := range strings.SplitSeq(value, ",") {
			all = append(all, item)
		}
		return all
	}
	return value
}

func (d document) checkRequestBody(t *testing.T, op operation, media, body string, seen sightings) {
	t.Helper()
	if op.body[media] == nil {
		media = "*/*"
	}
	content, ok := op.body[media].(object)
	if !ok {
		t.Fatalf("a body of %q is not documented", media)
	}
	seen[op.id+" of "+media] = true
	switch media {
	case linesMedia:
		for line := range strings.Lines(body) {
			d.checkJSON(t, content["schema"], line)
		}
	case jsonMedia:
		d.checkJSON(t, content["schema"], body)
	}
}

// ordinary lists headers that the document need not mention.
var ordinary = []string{"Content-Length", "Content-Type", "Date", "Transfer-Encoding", "Vary", "X-Accel-Buffering", "X-Content-Type-Options", "X-Request-Id"}

// checkAnswer checks an answer against the document.
func (d document) checkAnswer(t *testing.T, op operation, r *http.Response, media, body string, seen sightings) {
	t.Helper()
	if len(r.Header["X-Request-Id"]) != 1 {
		t.Errorf("the request ids %q", r.Header["X-Request-Id"])
	}
	status := strconv.Itoa(r.StatusCode)
	response, ok := op.responses[status]
	if !ok {
		t.Fatalf("%s is not documented", status)
	}
	answer := op.id + " " + status
	seen[answer] = true
	headers, _ := response["headers"].(object)
	documented := slices.Clone(ordinary)
	for name, h := range headers {
		documented = append(documented, http.CanonicalHeaderKey(name))
		h := d.resolve(h)
		value := r.Header.Get(name)
		switch {
		case value != "":
			seen[answer+" with "+name] = true
			if err := d.check(h["schema"], value); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case h["required"] == true:
			t.Errorf("there is no %s", name)
		}
	}
	for name := range r.Header {
		if !slices.Contains(documented, name) {
			t.Errorf("the header %s is not documented", name)
		}
	}
	content, _ := response["content"].(object)
	if media == "" {
		if body != "" || content != nil {
			t.Errorf("the body %q comes without a type, documented is %v", body, content)
		}
		return
	}
	of, ok := content[media].(object)
	if !ok {
		t.Fatalf("%s is not documented", media)
	}
	seen[answer+" as "+media] = true
	if op.method != http.MethodHead {
		d.checkBody(t, of["schema"], media, body, seen)
	} else if body != "" {
		t.Errorf("HEAD came with %q", body)
	}
}

func (d document) checkBody(t *testing.T, schema any, media, body string, seen sightings) {
	t.Helper()
	switch media {
	case streamMedia:
		d.checkStream(t, body, seen)
	case linesMedia:
		for line := range strings.Lines(body) {
			if strings.HasSuffix(line, "\n") && line != "\n" {
				value, _ := d.checkJSON(t, schema, line).(object)
				seen[fmt.Sprint(value["type"], " in ", linesMedia)] = true
			}
		}
	case jsonMedia, problemMedia:
		d.checkJSON(t, schema, body)
	case "application/yaml":
		if !strings.HasPrefix(body, "openapi: ") {
			t.Errorf("%.100s", body)
		}
	}
}

// checkStream checks the whole blocks of an event stream against the document, which
// describes control events as lines.
func (d document) checkStream(t *testing.T, body string, seen sightings) {
	t.Helper()
	controls := d.controls()
	for body != "" {
		block, rest, whole := strings.Cut(body, "\n\n")
		if !whole {
			return
		}
		body = rest
		fields := map[string]string{}
		for line := range strings.SplitSeq(block, "\n") {
			if name, value, _ := strings.Cut(line, ": "); line != ":" {
				fields[name] = value
			}
		}
		s, ok := controls[fields["event"]]
		if !ok {
			if strings.HasPrefix(fields["data"], "{") { // the events of this test are numbers, or in envelopes
				d.checkJSON(t, object{"$ref": "#/components/schemas/StoredEvent"}, fields["data"])
			}
			continue
		}
		seen[fields["event"]+" in "+streamMedia] = true
		properties := s["properties"].(object)
		d.checkJSON(t, properties["data"], fields["data"])
		if _, moves := properties["cursor"]; moves != (fields["id"] != "") {
			t.Errorf("the id of %q is not as documented", block)
		}
	}
}

func (d document) checkJSON(t *testing.T, schema any, text string) any {
	t.Helper()
	value, err := parseJSON(text)
	if err == nil {
		err = d.check(schema, value)
	}
	if err != nil {
		t.Errorf("%v: %.300s", err, text)
	}
	return value
}
