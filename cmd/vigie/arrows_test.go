package main

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestArrows holds the import arrows of the design: what each package may
// import of this module, and who alone may speak to Kafka and Redis.
func TestArrows(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Deps \" \"}}", "vigie/...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	deps := map[string][]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(line)
		deps[f[0]] = f[1:]
	}

	// Each pattern may depend, within the module, on its own tree and on these.
	may := []struct{ pkg, on string }{
		{"vigie/watchlist/plate", `-`},
		{"vigie/watchlist", `vigie/watchlist/plate`},
		{"vigie/watchlist/control", `vigie/watchlist(/plate|/control/.*)?`},
		{"vigie/sensors", `vigie/(watchlist/plate|sensors/.*)`},
		{"vigie/sensors/format", `vigie/(watchlist/plate|sensors)`},
		{"vigie/sensors/spool", `vigie/(watchlist/plate|sensors)`},
		{"vigie/sensors/passage", `vigie/(watchlist/plate|sensors)`},
		{"vigie/sensors/picture", `vigie/(watchlist/plate|sensors)`},
		{"vigie/sensors/ingest", `vigie/(watchlist/plate|sensors(/format|/passage)?)`},
		{"vigie/sensors/mqtt", `vigie/(watchlist/plate|sensors(/format|/passage|/ingest)?)`},
		{"vigie/matcher/misread", `vigie/watchlist/plate`},
		{"vigie/matcher", `vigie/watchlist(/.*)?|vigie/matcher/misread`},
		{"vigie/stream/alert", `vigie/(watchlist|sensors|stream/alert)(/.*)?`},
		{"vigie/stream", `vigie/(watchlist|sensors|matcher|stream/alert)(/.*)?`},
		{"vigie/stream/ledger", `vigie/(watchlist|sensors|stream/alert)(/.*)?`},
		{"vigie/stream/kafka", `vigie/(watchlist|sensors|matcher|stream/alert)(/.*)?|vigie/stream|vigie/stream/redial`},
		{"vigie/stream/redisqueue", `vigie/(watchlist|sensors|matcher|stream/alert)(/.*)?|vigie/stream|vigie/stream/redial`},
		{"vigie/stream/redial", `-`},
		{"vigie/stream/embedded", `-`},
	}
	for _, m := range may {
		ds, ok := deps[m.pkg]
		if !ok {
			t.Errorf("%s is not in the module any more: mend this test", m.pkg)
		}
		allowed := regexp.MustCompile("^(" + m.on + ")$")
		for _, d := range ds {
			if strings.HasPrefix(d, "vigie/") && !allowed.MatchString(d) {
				t.Errorf("%s depends on %s", m.pkg, d)
			}
		}
	}

	only := []struct {
		lib  string
		pkgs []string
	}{
		{"github.com/segmentio/kafka-go", []string{"vigie/stream/kafka", "vigie/deploy/services", "vigie/bench/e2e/loop"}},
		{"github.com/redis/go-redis/v9", []string{"vigie/stream/redisqueue"}},
		{"github.com/eclipse/paho.golang", []string{"vigie/sensors/mqtt", "vigie/sensors/sim/publish"}},
	}
	imports, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "vigie/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(imports)), "\n") {
		f := strings.Fields(line)
		for _, o := range only {
			for _, imp := range f[1:] {
				if (imp == o.lib || strings.HasPrefix(imp, o.lib+"/")) && !slices.Contains(o.pkgs, f[0]) {
					t.Errorf("%s imports %s, which only %s may", f[0], imp, strings.Join(o.pkgs, " and "))
				}
			}
		}
	}

	for pkg, ds := range deps {
		for _, d := range ds {
			if strings.HasPrefix(d, "vigie/bench") && !strings.HasPrefix(pkg, "vigie/bench") {
				t.Errorf("%s depends on %s: nothing may import bench", pkg, d)
			}
			if strings.HasPrefix(d, "vigie/cmd") && !strings.HasPrefix(pkg, "vigie/cmd") {
				t.Errorf("%s depends on %s: nothing may import cmd", pkg, d)
			}
		}
	}
}
