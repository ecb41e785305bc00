package postgres

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/storage/testserver"
)

// The examples of docs/transactions.md in SQL, Go and Python work as the page
// describes.
func TestExamples(t *testing.T) {
	t.Parallel()
	p := testserver.StartPostgres(t)
	p.Exec(t, "postgres", "CREATE ROLE app LOGIN PASSWORD 'secret'")
	url := p.URL("postgres")
	s := start(t, url, Options{})
	c := connect(t, url)
	page := readBlocks(t, "../../docs/transactions.md")
	if len(page["sql"]) != 5 || len(page["go"]) != 1 || len(page["python"]) != 2 {
		t.Fatalf("the page has %d examples in SQL, %d in Go and %d in Python", len(page["sql"]), len(page["go"]), len(page["python"]))
	}
	runSQL(t, c, page["sql"]...)
	runSQL(t, c, "GRANT ALL ON orders TO app")

	goExample(t, url, page["go"][0])
	python(t, url, page["python"][0]+`
import os
connection = psycopg2.connect(os.environ["DATABASE"])
assert create_order(connection, 9, "grace") == 3
try:
    create_order(connection, 9, "grace")
    raise SystemExit("an order was created twice")
except psycopg2.errors.UniqueViolation:
    pass
`)
	python(t, url, `
import os, urllib.parse, django
from django.conf import settings
from django.db import models
url = urllib.parse.urlsplit(os.environ["DATABASE"])
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:],
    "USER": url.username, "PASSWORD": url.password, "HOST": url.hostname, "PORT": url.port}})
django.setup()
class Order(models.Model):
    customer = models.TextField()
    class Meta:
        app_label, db_table = "shop", "orders"
`+page["python"][1]+`
from django.db import IntegrityError
assert create_order(10, "grace") == 4
try:
    with transaction.atomic():
        create_order(11, "grace")
        Order.objects.create(id=10, customer="again")
    raise SystemExit("an order was created twice")
except IntegrityError:
    pass
`)
	events := stored(t, s, "orders")
	want := []string{`{"id": 7}`, `{"id": 8}`, `{"id": 9}`, `{"id": 10}`}
	if len(events) != len(want) {
		t.Fatalf("got %v", events)
	}
	for i, e := range events {
		if e.Data != want[i] || e.Type != "order.created" || !e.JSON {
			t.Errorf("got %+v, want the data %s", e, want[i])
		}
	}

	// The trigger publishes the rows that the examples have inserted, and the changes
	// of a role that has the grants.
	runSQL(t, c, "SET ROLE app", "UPDATE orders SET customer = 'alan' WHERE id = 7", "DELETE FROM orders WHERE id = 8", "RESET ROLE")
	var queue []string
	for _, q := range readQueue(t, c, 0, 100) {
		queue = append(queue, q.draft.Feed+" "+q.draft.Type+" "+q.draft.Data)
	}
	if got, want := strings.Join(queue, "\n"), strings.Join([]string{
		`orders order.insert {"id": 8, "customer": "grace"}`, `orders order.insert {"id": 9, "customer": "grace"}`, `orders order.insert {"id": 10, "customer": "grace"}`,
		`orders order.update {"id": 7, "customer": "alan"}`, `orders order.delete {"id": 8, "customer": "grace"}`,
	}, "\n"); got != want {
		t.Errorf("the queue has\n%s\nwant\n%s", got, want)
	}
}

// readBlocks returns the fenced blocks of a page, by language.
func readBlocks(t *testing.T, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string][]string)
	for _, match := range regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		blocks[match[1]] = append(blocks[match[1]], match[2])
	}
	return blocks
}

// goExample runs the example as a program of this module.
func goExample(t *testing.T, url, example string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "main.go")
	program := `package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

` + example + `
func main() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, os.Getenv("DATABASE"))
	if err != nil {
		panic(err)
	}
	if event, err := createOrder(ctx, conn, 8, "grace"); event != 2 || err != nil {
		panic(fmt.Sprint(event, err))
	}
	if _, err := createOrder(ctx, conn, 8, "grace"); err == nil {
		panic("an order was created twice")
	}
	if _, err := conn.Exec(ctx, "UPDATE rejoin.feeds SET closed = true"); err != nil {
		panic(err)
	}
	if _, err := createOrder(ctx, conn, 12, "grace"); err == nil || !strings.HasPrefix(err.Error(), "no more orders") {
		panic(err)
	}
	if _, err := conn.Exec(ctx, "UPDATE rejoin.feeds SET closed = false"); err != nil {
		panic(err)
	}
}
`
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	runExample(t, url, exec.Command("go", "run", file))
}

// python runs a program in a Python that has the modules of the examples.
func python(t *testing.T, url, program string) {
	t.Helper()
	for _, interpreter := range []string{"/usr/bin/python3", "python3"} { // Debian's first
		if exec.Command(interpreter, "-c", "import psycopg2, django").Run() == nil {
			cmd := exec.Command(interpreter, "-")
			cmd.Stdin = strings.NewReader(program)
			runExample(t, url, cmd)
			return
		}
	}
	t.Fatal("this test needs psycopg2 and Django: apt-get install python3-psycopg2 python3-django")
}

func runExample(t *testing.T, url string, cmd *exec.Cmd) {
	t.Helper()
	cmd.Env = append(os.Environ(), "DATABASE="+url)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}
