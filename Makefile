# Vigie. `make` prints the targets; `make demo` and `make test` need nothing
# but Go (and, for test, Java and Maven) on a fresh machine.

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
FUZZTIME    ?= 20s
BENCHTIME   ?= 1s

.DEFAULT_GOAL := help
.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## build and run the main job on embedded Kafka and Redis: simulated sensors, live hits (Ctrl-C ends it)
	go run ./cmd/vigie demo

.PHONY: build
build: ## build bin/vigie
	go build -trimpath -o bin/vigie ./cmd/vigie

.PHONY: run
run: build ## run bin/vigie serve on the embedded services, keeping its data in ./data
	bin/vigie serve --data data

.PHONY: test
test: ## run every test, with the race detector, on real Kafka and real Redis too (installs or fetches what is missing)
	go run ./deploy/testenv -- go test -race -count=1 -timeout 15m ./...

.PHONY: quick
quick: ## run the tests that need no service
	go test ./...

.PHONY: race
race: ## quick, with the race detector
	go test -race ./...

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, and go.mod tidy
	@test -z "$$(gofmt -l .)" || { echo "not gofmt'd:"; gofmt -l .; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	go mod tidy -diff

.PHONY: fuzz
fuzz: ## fuzz every parser of outside bytes for FUZZTIME each (default 20s)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for f in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go | sed 's/func //'); do \
			echo "$$dir $$f"; go test $$dir -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) || exit 1; \
		done; done

.PHONY: bench
bench: ## run the benchmarks
	go test ./... -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME)

.PHONY: generate
generate: ## regenerate the Protobuf code
	go run ./deploy/genproto
