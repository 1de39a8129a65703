//go:build linux

package chaos

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"vigie/deploy/services"
	"vigie/stream/streamtest"
)

// lab is what the tests of one run share.
var lab struct {
	seed  uint64
	began time.Time
	dir   string

	build    sync.Once
	vigie    string // the program under test
	buildErr error

	mu      sync.Mutex
	redis   *services.Redis
	results []*result
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	lab.began = time.Now()
	lab.seed = rand.Uint64N(1_000_000)
	if text := os.Getenv("VIGIE_CHAOS_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			fmt.Fprintf(os.Stderr, "chaos: VIGIE_CHAOS_SEED=%q is not a whole number\n", text)
			return 2
		}
		lab.seed = n
	}
	fmt.Printf("chaos: seed %d\n", lab.seed)
	dir, err := os.MkdirTemp("", "vigie-chaos-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	lab.dir = dir
	defer os.RemoveAll(dir)

	code := m.Run()

	if lab.redis != nil {
		err = lab.redis.Kill()
	}
	if err = errors.Join(err, report(lab.results)); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		code = max(code, 1)
	}
	return code
}

// program builds vigie from this tree, once.
func program(t *testing.T) string {
	t.Helper()
	lab.build.Do(func() {
		lab.vigie = filepath.Join(lab.dir, "vigie")
		if out, err := exec.Command("go", "build", "-o", lab.vigie, "vigie/cmd/vigie").CombinedOutput(); err != nil {
			lab.buildErr = fmt.Errorf("build vigie: %w\n%s", err, out)
		}
	})
	if lab.buildErr != nil {
		t.Fatal(lab.buildErr)
	}
	return lab.vigie
}

// dice are the random numbers of one test: the same for the same seed, whichever tests run.
func dice(t *testing.T) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(t.Name()))
	return rand.New(rand.NewPCG(lab.seed, h.Sum64()))
}

// between is a random time from lo up to hi.
func between(r *rand.Rand, lo, hi time.Duration) time.Duration {
	return lo + time.Duration(r.Int64N(int64(hi-lo)))
}

// short is a for the form that runs with every test, and b for make chaos.
func short[T any](a, b T) T {
	if full {
		return b
	}
	return a
}

// beside lets a test that breaks no service run beside another one in the short form: most of
// its time it waits for a session to end. The full form measures one thing at a time.
func beside(t *testing.T) {
	if !full {
		t.Parallel()
	}
}

// sharedKafka is the broker that deploy/testenv has started, for faults that do not touch it.
func sharedKafka(t *testing.T) string {
	t.Helper()
	return streamtest.Need(t, "VIGIE_TEST_KAFKA")
}

// sharedRedis is a server of this run that tests may break one after the other, and mend. It
// keeps its data as in production.
func sharedRedis(t *testing.T) *services.Redis {
	t.Helper()
	streamtest.Need(t, "VIGIE_TEST_REDIS") // then the program is there
	lab.mu.Lock()
	defer lab.mu.Unlock()
	if lab.redis == nil {
		r, err := services.StartRedis(t.Context(), services.RedisConfig{
			Dir: filepath.Join(lab.dir, "redis"), AOF: true, Args: []string{"--repl-diskless-sync-delay", "0", "--enable-protected-configs", "yes"},
		})
		if err != nil {
			t.Fatal(err)
		}
		lab.redis = r
	}
	return lab.redis
}
