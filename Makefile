# What developers and CI run. "make" alone lists it.

GO ?= go
FUZZTIME ?= 30s
TORTURE_FOR ?= 10m
TORTURE_SEED ?= 0
TORTURE_WORLDS ?=
BENCHTIME ?= 1s
ROUNDS ?= 3
ONLY ?=
VERSION ?=

# Without this tag, grpc, of which tracing links a little, brings templates. They call
# methods by name, so the linker could leave out none: a third of the binary.
export GOFLAGS += -tags=grpcnotrace

.DEFAULT_GOAL := help
.PHONY: help run build vet test test-short check race firefox bench microbench fuzz torture

help: ## List what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "make %-10s %s\n", $$1, $$2 }'

run: ## Serve on http://127.0.0.1:8080, with the store in ./rejoin.db
	$(GO) run ./cmd/rejoin serve

build: ## Build bin/rejoin; VERSION=v1.2.3 names the version
	$(GO) build -trimpath -ldflags '$(if $(VERSION),-X main.version=$(VERSION))' -o bin/rejoin ./cmd/rejoin

vet:
	$(GO) vet -tags=grpcnotrace,firefox ./...

# Most of the time goes to compiling. SQLite and the client of Redis, the two largest,
# take half as long if the compiler optimizes them less; and the compiler takes a fifth
# less if it collects its garbage seldom. Tests run without that: they measure memory.
check vet test test-short: export CGO_CFLAGS ?= -O1
check vet test test-short: export GOFLAGS += -gcflags=github.com/redis/go-redis/v9=-l
check vet test: export GOGC := 400
TEST = $(GO) test -vet=off -exec 'env -u GOGC'

# Tests wait for servers and clocks most of the time, so more of them run at once than
# there are cores, in three packages: the end-to-end tests, which take as long as all
# others, and two of those, the longest first. The end-to-end tests build the command with
# the race detector, and do without it themselves. So does the simulation: it is a matter
# of many seeds, and runs ten times as many in that time.
LONGEST = ./server ./storage/postgres
test: export GORACE ?= atexit_sleep_ms=50
test: vet ## Vet, and run every test, servers with the race detector; brings what the tests need
	bash .ci/parts
	$(GO) build -race ./...
	$(TEST) -run '^TestSimulation$$' ./feed
	$(TEST) -parallel 4 -timeout 15m ./cmd/internal/e2e -detect-races & e2e=$$!; \
	$(TEST) -race -p 2 -parallel 4 -timeout 15m $(LONGEST) \
		$$($(GO) list ./... | grep -v -e /cmd/internal/e2e$$ $(foreach one,$(LONGEST),-e /rejoin$(one:.%=%)$$)); others=$$?; \
	wait $$e2e && exit $$others

# The tests of server that are left out repeat others over net/http, read slowly, or
# run other clients. With -short, the simulation runs a tenth of its seeds.
test-short: ## Run the quick tests, which start no other program, without the race detector: while you work
	$(GO) test -short -vet=off -p 4 -parallel 8 -timeout 5m \
		-skip '^Test(OverNetHTTP|OverTLS|OverHTTP2|SlowReadersGetTheSame|OpenAPIAnswers|LongPages|StandingReadersHoldNothing|PublishStreamClients|PublishStreamMemory|TLSKeyUpdate)$$' \
		$$($(GO) list ./... | grep -v -e /cmd/internal/e2e -e /storage/)

check: vet ## Judge the source: gofmt, vet, staticcheck, go mod tidy
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt -w:" $$unformatted >&2; exit 1; fi
	$(GO) tool -modfile=tools.mod staticcheck ./...
	$(GO) mod tidy -diff

race: ## Run the tests of feed, server and storage five times over, to meet rare interleavings
	$(GO) test -race -count 5 -timeout 30m ./feed/... ./server/... ./storage/...

firefox: ## Use the console, and follow a hundred feeds over HTTP/2, in Firefox, which Debian has in 300 MB
	bash .ci/parts firefox-esr
	$(GO) test -tags=grpcnotrace,firefox -v -run '^TestFirefox$$' ./cmd/internal/e2e

bench: ## Measure the server, beside nchan if that is installed; ROUNDS=1 and ONLY=idle make it short
	bash .ci/parts
	$(GO) test -run '^$$' -bench '^BenchmarkCompare$$' -benchtime 1x -timeout 60m ./cmd/internal/e2e -compare-rounds $(ROUNDS) -compare-only '$(ONLY)'

# The command under test runs on the first core, so what drives it is kept off
# that one, where there is another.
microbench: ## Run the Go benchmarks for BENCHTIME each
	bash .ci/parts
	$$(if [ "$$(nproc)" -gt 1 ]; then echo taskset -c 1-$$(($$(nproc) - 1)); fi) \
		$(GO) test -p 1 -run '^$$' -bench . -skip '^Benchmark(Compare|Console)$$' -benchmem -benchtime $(BENCHTIME) -timeout 30m ./...

fuzz: ## Run every fuzz target for FUZZTIME
	@set -e; for package in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' "$$package" | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package"; \
		done; \
	done

torture: ## Try to refute the promise for TORTURE_FOR; totals are appended to bin/torture.json
	bash .ci/parts
	@mkdir -p bin
	$(GO) test -v -timeout 0 -run '^TestTorture$$' ./cmd/internal/e2e -args \
		-torture-for=$(TORTURE_FOR) -torture-seed=$(TORTURE_SEED) -torture-worlds='$(TORTURE_WORLDS)' -torture-out=$(CURDIR)/bin/torture.json
