package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// object is an object of the OpenAPI document.
type object = map[string]any

// document is an OpenAPI document, as far as this one needs it.
type document struct{ root object }

func readDocument(t *testing.T) document {
	t.Helper()
	text, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := yaml.Unmarshal(text, &d.root); err != nil {
		t.Fatal(err)
	}
	return d
}

// at returns the value that a reference such as #/components/schemas/Page names.
func (d document) at(reference string) (any, bool) {
	var found any = d.root
	for name := range strings.SplitSeq(strings.TrimPrefix(reference, "#/"), "/") {
		o, ok := found.(object)
		if !ok {
			return nil, false
		}
		if found, ok = o[name]; !ok {
			return nil, false
		}
	}
	return found, true
}

// resolve follows a reference. Members beside the reference are added to the result.
func (d document) resolve(v any) object {
	o, _ := v.(object)
	reference, ok := o["$ref"].(string)
	if !ok {
		return o
	}
	named, _ := d.at(reference)
	all := maps.Clone(d.resolve(named))
	for name, value := range o {
		switch name {
		case "$ref":
		case "required":
			known, _ := all[name].([]any)
			all[name] = slices.Concat(known, value.([]any))
		case "properties":
			both := maps.Clone(all[name].(object))
			maps.Copy(both, value.(object))
			all[name] = both
		default:
			all[name] = value
		}
	}
	return all
}

// check returns the errors of a JSON value, whose numbers are json.Number. Members
// that are not in the schema are errors, because the schema would be incomplete.
func (d document) check(schema, value any) error {
	s := d.resolve(schema)
	for keyword, want := range s {
		if err := d.checkKeyword(s, keyword, want, value); err != nil {
			return err
		}
	}
	if members, ok := value.(object); ok && s["type"] == "object" {
		return d.checkMembers(s, members)
	}
	return nil
}

func (d document) checkKeyword(s object, keyword string, want, value any) error {
	text, isText := value.(string)
	number, isNumber := value.(json.Number)
	ok := true
	switch keyword {
	case "description", "example", "examples", "default", "required", "properties", "additionalProperties":
	case "type":
		ok = want == typeOf(value)
	case "const":
		ok = value == want
	case "enum":
		ok = slices.Contains(want.([]any), value)
	case "pattern":
		ok = !isText || regexp.MustCompile(want.(string)).MatchString(text)
	case "format":
		if want == "date-time" {
			_, err := time.Parse(time.RFC3339, text)
			ok = err == nil
		}
	case "minimum", "maximum":
		n, err := number.Int64()
		least := int64(want.(int))
		ok = !isNumber || err == nil && (n == least || n > least == (keyword == "minimum"))
	case "items":
		all, _ := value.([]any)
		for i, item := range all {
			if err := d.check(want, item); err != nil {
				return fmt.Errorf("item %d: %w", i, err)
			}
		}
	case "minItems":
		all, _ := value.([]any)
		ok = len(all) >= want.(int)
	case "oneOf", "anyOf":
		return d.checkChoice(keyword == "oneOf", want.([]any), value)
	default:
		return fmt.Errorf("the test does not know the keyword %s", keyword)
	}
	if !ok {
		return fmt.Errorf("%.100v is not as %s %v has it", value, keyword, want)
	}
	return nil
}

func (d document) checkChoice(one bool, choices []any, value any) error {
	var faults []error
	for _, choice := range choices {
		if err := d.check(choice, value); err != nil {
			faults = append(faults, err)
		}
	}
	if fit := len(choices) - len(faults); fit == 0 || one && fit > 1 {
		return fmt.Errorf("%d choices fit %.200v: %w", fit, value, errors.Join(faults...))
	}
	return nil
}

func (d document) checkMembers(s, members object) error {
	properties, _ := s["properties"].(object)
	for name, value := range members {
		property, ok := properties[name]
		if !ok {
			return fmt.Errorf("the member %s is not documented", name)
		}
		if err := d.check(property, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	required, _ := s["required"].([]any)
	for _, name := range required {
		if _, ok := members[name.(string)]; !ok {
			return fmt.Errorf("the member %s is missing", name)
		}
	}
	return nil
}

func typeOf(value any) string {
	switch v := value.(type) {
	case string:
		return "string"
	case bool:
		return "boolean"
	case object:
		return "object"
	case []any:
		return "array"
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return "integer"
		}
		return "number"
	}
	return "null"
}

// parseJSON returns a JSON value as check wants it.
func parseJSON(text string) (value any, err error) {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return nil, fmt.Errorf("%w in %.200q", err, text)
	}
	if decoder.More() {
		return nil, fmt.Errorf("more than one value in %.200q", text)
	}
	return value, nil
}

// TestSchemaCheck: the checker of the tests finds what is wrong.
func TestSchemaCheck(t *testing.T) {
	d := readDocument(t)
	const event = `"feed":"chat","type":"message","time":"2026-01-31T09:30:00.000Z","data":null`
	for _, test := range []struct{ schema, text, fault string }{
		{"Envelope", `{` + event + `}`, ""},
		{"Envelope", `{` + event + `,"id":1}`, ""},
		{"Envelope", `{` + event + `,"id":0}`, "minimum"},
		{"Envelope", `{` + event + `,"id":"1"}`, "type integer"},
		{"Envelope", `{` + event + `,"colour":1}`, "colour is not documented"},
		{"Envelope", `{` + strings.Replace(event, `"chat"`, `"-"`, 1) + `}`, "pattern"},
		{"Envelope", `{` + strings.Replace(event, "01-31", "02-31", 1) + `}`, "format"},
		{"Envelope", `[]`, "type object"},
		{"StoredEvent", `{` + event + `}`, "id is missing"},
		{"Line", `{"type":"feed.heartbeat","data":{}}`, ""},
		{"Line", `{"type":"feed.heartbeat","data":{"x":1}}`, "0 choices"},
		{"Line", `{"type":"feed.expired","data":{"reason":"age"}}`, "0 choices"},
		{"PublishedBatch", `{"events":[{"feed":"a","id":1},{"feed":"b"}]}`, "item 1: the member id is missing"},
		{"Problem", `{"title":"a","status":503,"detail":"","stored":"perhaps"}`, "enum"},
	} {
		value, err := parseJSON(test.text)
		if err != nil {
			t.Fatal(err)
		}
		err = d.check(object{"$ref": "#/components/schemas/" + test.schema}, value)
		if (err == nil) != (test.fault == "") || err != nil && !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s %s: %v, want %q", test.schema, test.text, err, test.fault)
		}
	}
}
