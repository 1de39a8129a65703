#!/usr/bin/env bash
# Runs the benchmarks of matcher and plate on a base commit and on this tree, as
# it lies here, in turn, so that what disturbs the machine disturbs both, and
# prints benchstat. The base is built in a git worktree that is removed again.
#
#   bench/compare.sh main        make bench-compare sets BENCH, COUNT, BENCHTIME and BENCHSTAT
set -euo pipefail
cd "$(dirname "$0")/.."
base=$1
packages="matcher watchlist/plate"

work=$(mktemp -d)
cleanup() {
	git worktree remove --force "$work/tree" 2>/dev/null || true
	rm -rf "$work"
	git worktree prune
}
trap cleanup EXIT
trap 'exit 130' INT TERM

git worktree add --quiet --detach "$work/tree" "$base"
build() { # tree, name
	for p in $packages; do
		(cd "$1" && go test -c -o "$work/$2.${p//\//-}" "./$p")
	done
}
build "$work/tree" base
build . this
measure() { # tree, name
	for p in $packages; do
		(cd "$1/$p" && "$work/$2.${p//\//-}" -test.run '^$' -test.bench "$BENCH" \
			-test.benchmem -test.benchtime "$BENCHTIME") >>"$work/$2.txt"
	done
}
for i in $(seq "$COUNT"); do
	echo "round $i of $COUNT" >&2
	measure "$work/tree" base
	measure . this
done
go run "$BENCHSTAT" "$base=$work/base.txt" "this=$work/this.txt"
