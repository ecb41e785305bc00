package server_test

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// operation is an operation of the document with all references resolved.
type operation struct {
	id, method, path string
	secured          bool
	parameters       map[string]object // by place and name: "query limit"
	responses        map[string]object // by status
	body             object            // of the request, by media type
	spec             object
}

var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}

// operations returns all operations, sorted.
func (d document) operations(t *testing.T) (all []operation) {
	t.Helper()
	paths := d.root["paths"].(object)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := paths[path].(object)
		for name := range item {
			if name != "parameters" && !slices.Contains(methods, strings.ToUpper(name)) {
				t.Errorf("%s: the test does not know %s", path, name)
			}
		}
		for _, method := range methods {
			if spec, ok := item[strings.ToLower(method)].(object); ok {
				all = append(all, d.operation(t, method, path, item, spec))
			}
		}
	}
	return all
}

func (d document) operation(t *testing.T, method, path string, item, spec object) operation {
	t.Helper()
	id, _ := spec["operationId"].(string)
	op := operation{id: id, method: method, path: path, secured: true, spec: spec, parameters: map[string]object{}, responses: map[string]object{}}
	if security, ok := spec["security"].([]any); ok {
		op.secured = len(security) > 0
	}
	for _, from := range []object{item, spec} {
		parameters, _ := from["parameters"].([]any)
		for _, p := range parameters {
			p := d.resolve(p)
			name := fmt.Sprint(p["in"], " ", p["name"])
			if op.parameters[name] != nil {
				t.Errorf("%s: the parameter %s is there twice", id, name)
			}
			op.parameters[name] = p
		}
	}
	for status, r := range spec["responses"].(object) {
		op.responses[status] = d.resolve(r)
	}
	if body := d.resolve(spec["requestBody"]); body != nil {
		op.body = body["content"].(object)
	}
	return op
}

// TestOpenAPIRoutes: the document has all routes of the server, and no other.
func TestOpenAPIRoutes(t *testing.T) {
	n := start(t, server.Options{}, nil)
	var routed, documented []string
	err := chi.Walk(n.Routes(), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routed = append(routed, method+" "+route)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	inPath := regexp.MustCompile(`\{(\w+)\}`)
	for _, op := range readDocument(t).operations(t) {
		documented = append(documented, op.method+" "+op.path)
		var named, declared []string
		for _, m := range inPath.FindAllStringSubmatch(op.path, -1) {
			named = append(named, m[1])
		}
		for name, p := range op.parameters {
			if where, name, _ := strings.Cut(name, " "); where == "path" {
				declared = append(declared, name)
				if p["required"] != true {
					t.Errorf("%s: the parameter %s in the path is not required", op.id, name)
				}
			}
		}
		slices.Sort(named)
		slices.Sort(declared)
		if diff := cmp.Diff(named, declared); diff != "" {
			t.Errorf("%s: parameters in the path: %s", op.id, diff)
		}
	}
	slices.Sort(routed)
	slices.Sort(documented)
	if diff := cmp.Diff(routed, documented); diff != "" {
		t.Errorf("- routed, + documented: %s", diff)
	}
}

// TestOpenAPIReferences: each reference leads somewhere, and each component is used.
func TestOpenAPIReferences(t *testing.T) {
	d := readDocument(t)
	used := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case object:
			if reference, ok := v["$ref"].(string); ok {
				used[reference] = true
				if _, ok := d.at(reference); !ok {
					t.Errorf("%s leads nowhere", reference)
				}
			}
			for _, member := range v {
				walk(member)
			}
		case []any:
			for _, item := range v {
				walk(item)
			}
		}
	}
	walk(d.root)
	for kind, all := range d.root["components"].(object) {
		for name := range all.(object) {
			if reference := "#/components/" + kind + "/" + name; !used[reference] && kind != "securitySchemes" {
				t.Errorf("nothing uses %s", reference)
			}
		}
	}
	schemes, _ := d.at("#/components/securitySchemes")
	var asked []string
	for _, s := range d.root["security"].([]any) {
		asked = slices.AppendSeq(asked, maps.Keys(s.(object)))
	}
	slices.Sort(asked)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(schemes.(object))), asked); diff != "" {
		t.Errorf("security schemes: %s", diff)
	}
}

// TestOpenAPIOperations: each operation has a summary, and lists its errors.
func TestOpenAPIOperations(t *testing.T) {
	d := readDocument(t)
	seen := map[string]bool{}
	for _, op := range d.operations(t) {
		if op.id == "" || seen[op.id] {
			t.Errorf("%s %s: operationId %q is empty or not unique", op.method, op.path, op.id)
		}
		seen[op.id] = true
		if summary, _ := op.spec["summary"].(string); summary == "" {
			t.Errorf("%s: no summary", op.id)
		}
		for _, status := range []string{"401", "403"} {
			if (op.responses[status] != nil) != op.secured {
				t.Errorf("%s: it asks for a token: %v, but %s is documented: %v", op.id, op.secured, status, !op.secured)
			}
		}
		for status, r := range op.responses {
			if description, _ := r["description"].(string); description == "" {
				t.Errorf("%s %s: no description", op.id, status)
			}
			content, _ := r["content"].(object)
			if status < "400" || op.path == "/readyz" {
				continue
			}
			if len(content) != 1 || content["application/problem+json"] == nil {
				t.Errorf("%s %s is no problem", op.id, status)
			}
		}
	}
}

// TestOpenAPIServed: every client gets the document, including pages of other origins,
// and from a node that waits for its store.
func TestOpenAPIServed(t *testing.T) {
	origins := []string{"https://a.example"}
	n := guarded(t, auth.Options{Key: secret}, server.Options{Origins: origins})
	http1 := httptest.NewServer(server.Waiting(server.Options{Origins: origins}))
	defer http1.Close()
	waiting := &node{t: t, url: http1.URL}
	for _, n := range []*node{n, waiting} {
		r, body := n.do("GET", "/openapi.yaml", map[string]string{"Origin": "https://a.example"}, "")
		if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/yaml" || !strings.HasPrefix(body, "openapi: 3.1") ||
			r.ContentLength != int64(len(body)) || r.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s %v %.100s", r.Status, r.Header, body)
		}
		if got := r.Header.Get("Access-Control-Allow-Origin"); got != "https://a.example" {
			t.Errorf("it is allowed to %q", got)
		}
		again, body := n.do("GET", "/openapi.yaml", map[string]string{"If-None-Match": r.Header.Get("ETag")}, "")
		if again.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("%s %.100s", again.Status, body)
		}
		head, body := n.do("HEAD", "/openapi.yaml", nil, "")
		if head.StatusCode != http.StatusOK || body != "" || head.ContentLength != r.ContentLength {
			t.Errorf("%s %v %.100s", head.Status, head.Header, body)
		}
	}
	r, body := waiting.do("POST", "/openapi.yaml", nil, "x")
	wantProblem(t, r, body, http.StatusServiceUnavailable, "nothing was stored")
}
