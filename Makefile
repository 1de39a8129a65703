# Vigie. `make` prints the targets; `make demo` and `make test` need nothing
# but Go (and, for test, Java and Maven) on a fresh machine.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
BENCHSTAT   := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
FUZZTIME    ?= 20s
BENCHTIME   ?= 1s
BENCH       ?= .
COUNT       ?= 10
BASE        ?= main

.DEFAULT_GOAL := help
.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## build and run the main job on embedded Kafka and Redis: simulated sensors, live hits (Ctrl-C ends it)
	go run ./cmd/vigie demo

.PHONY: build
build: ## build bin/vigie
	go build -trimpath -o bin/vigie ./cmd/vigie

.PHONY: run
run: build ## run bin/vigie serve on the embedded services, keeping its data in ./data
	bin/vigie serve --data data

# One package at a time: several of them measure, and share two cores with Kafka.
.PHONY: test
test: ## run every test, with the race detector, on real Kafka and real Redis too (installs or fetches what is missing)
	go run ./deploy/testenv -- go test -race -count=1 -p 1 -timeout 15m ./...

.PHONY: quick
quick: ## run the tests that need no service
	go test ./...

.PHONY: race
race: ## quick, with the race detector
	go test -race ./...

# The short form runs within make test. OUT=x.json also writes the table there and to x.md.
.PHONY: chaos
chaos: ## break a real installation in every way, 20 minutes; prints its seed (SEED=n repeats one, RUN=regex selects tests)
	VIGIE_CHAOS_SEED='$(SEED)' VIGIE_CHAOS_OUT='$(abspath $(OUT))' \
		go run ./deploy/testenv -- go test -tags chaos -count=1 -v -timeout 40m -run '$(RUN)' ./stream/chaos

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, and go.mod tidy
	@test -z "$$(gofmt -l .)" || { echo "not gofmt'd:"; gofmt -l .; exit 1; }
	go vet -tags chaos ./...
	go run $(STATICCHECK) -tags chaos ./...
	go mod tidy -diff

.PHONY: fuzz
fuzz: ## fuzz every parser of outside bytes for FUZZTIME each (default 20s)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go | sed 's/func //'); do \
			echo "$$dir $$f"; go test $$dir -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) || exit 1; \
		done; done

.PHONY: bench
bench: ## run the benchmarks (BENCH=regex, BENCHTIME=1s)
	go test ./... -run '^$$' -bench '$(BENCH)' -benchmem -benchtime $(BENCHTIME)

# In CI, where machines are shared, times are held to sanity limits only.
.PHONY: budget
budget: ## fail when the matcher breaks a budget: allocations, ratios, and unless CI is set the times themselves (6 GiB, under a minute)
	go run ./bench/budget -full $(if $(CI),,-ns)

E2E ?=

.PHONY: bench-e2e
bench-e2e: ## the whole job on a Kafka and a Redis of its own: CPU per read, reads per second, memory (E2E='-budget -repeat 3'; E2E=-h)
	@go run ./bench/e2e throughput $(E2E)

.PHONY: bench-latency
bench-latency: ## likewise, how long until a patrol has the alert, at 20,000 and 3,500 reads per second
	@go run ./bench/e2e latency $(E2E)

.PHONY: bench-replay
bench-replay: ## likewise, what a replay of 5 M old reads does to live ones
	@go run ./bench/e2e replay $(E2E)

.PHONY: bench-gateway
bench-gateway: ## likewise, reads posted to a gateway: until Kafka has them, and at full speed (E2E='-outage 5m -kill': while Kafka is away)
	@go run ./bench/e2e gateway $(E2E)

.PHONY: bench-compare
bench-compare: BENCHTIME = 300ms
bench-compare: ## benchstat of matcher and plate: BASE (main) against this tree, in turn (BENCH=regex, COUNT=10, BENCHTIME=300ms)
	@BENCH='$(BENCH)' COUNT='$(COUNT)' BENCHTIME='$(BENCHTIME)' BENCHSTAT='$(BENCHSTAT)' bench/compare.sh '$(BASE)'

.PHONY: generate
generate: ## regenerate the Protobuf code
	go run ./deploy/genproto
