package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/httpapi"
	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/streamtest"
	"vigie/watchlist"
)

const (
	operatorSecret = "operator-secret-for-the-client"
	sensorSecret   = "sensor-secret-for-the-client"
)

// nowhere is where the reads of these tests go.
type nowhere struct{}

func (nowhere) Publish(context.Context, []sensors.Read) error { return nil }

// newOperatorServer serves the operators' part on a control log in memory, and
// points the client to it.
func newOperatorServer(t *testing.T) {
	t.Helper()
	log := streamtest.NewControlLog()
	replica := stream.NewReplica(nil)
	desk, err := stream.NewDesk(stream.DeskConfig{Log: log, Replica: replica, Fencer: &streamtest.Queues{}, Zone: time.UTC})
	if err != nil {
		t.Fatal(err)
	}
	tokens := new(httpapi.Tokens)
	if err := tokens.Add(httpapi.Token{Name: "ops", Role: httpapi.RoleOperator}, operatorSecret); err != nil {
		t.Fatal(err)
	}
	gateway, err := sensors.New(sensors.Config{
		Publisher: nowhere{}, Known: func(id string) bool { _, ok := desk.Sensor(id); return ok },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := tokens.Add(httpapi.Token{Name: "gateway", Role: httpapi.RoleSensor}, sensorSecret); err != nil {
		t.Fatal(err)
	}
	server, err := httpapi.New(httpapi.Config{
		Addr: "127.0.0.1:0", Tokens: tokens, Log: zap.NewNop(), Desk: desk, Registry: desk, Gateway: gateway, SensorHealth: gateway,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- server.Run(ctx) }()
	go func() { done <- replica.Follow(ctx, log) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, <-done); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("VIGIE_SERVER", server.URL())
	t.Setenv("VIGIE_TOKEN", operatorSecret)
}

// result is what a command left.
type result struct {
	code     int
	out, err string // standard output, and standard error with the error of the command
}

// vigie runs a command line as main does.
func vigie(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	root := &cobra.Command{Use: "vigie", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(newListsCmd(), newEntriesCmd(), newSensorsCmd(), newExplainCmd())
	var out, errOut bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetIn(strings.NewReader(stdin))
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	r := result{out: out.String()}
	if err != nil {
		r.code = 1
		var coded *exitError
		if errors.As(err, &coded) {
			r.code, err = coded.code, coded.err
		}
		if err != nil {
			errOut.WriteString(err.Error() + "\n")
		}
	}
	r.err = errOut.String()
	return r
}

// step is one command and what must be in its result.
type step struct {
	name string
	args string // fields; $ENTRY is the entry that was added last
	code int
	out  []string
	err  []string
	json bool // standard output is one JSON document
}

// playSteps runs commands one after the other.
func playSteps(t *testing.T, steps []step) {
	t.Helper()
	entry := ""
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			r := vigie(t, "AB-123-CD\n", strings.Fields(strings.ReplaceAll(s.args, "$ENTRY", entry))...)
			if r.code != s.code {
				t.Errorf("exit code %d, want %d", r.code, s.code)
			}
			for _, want := range s.out {
				if !strings.Contains(r.out, want) {
					t.Errorf("standard output lacks %q", want)
				}
			}
			for _, want := range s.err {
				if !strings.Contains(r.err, want) {
					t.Errorf("standard error lacks %q", want)
				}
			}
			if s.err == nil && r.err != "" {
				t.Errorf("standard error is not empty")
			}
			if s.json {
				var doc any
				if err := json.Unmarshal([]byte(r.out), &doc); err != nil {
					t.Errorf("standard output is not one JSON document: %v", err)
				}
			}
			if s.name == "add as JSON" {
				var e struct{ ID string }
				if err := json.Unmarshal([]byte(r.out), &e); err != nil {
					t.Fatal(err)
				}
				entry = e.ID
			}
			if t.Failed() {
				t.Logf("vigie %s\nstdout:\n%s\nstderr:\n%s", s.args, r.out, r.err)
			}
		})
	}
}

// TestPatternCommands fills a list of patterns, and shows what it refuses.
func TestPatternCommands(t *testing.T) {
	newOperatorServer(t)
	until := time.Now().AddDate(0, 3, 0).Format("2006-01-02")
	many := filepath.Join(t.TempDir(), "many.csv")
	var rows strings.Builder
	rows.WriteString("plate,reason,case_ref,valid_until\n")
	for i := range watchlist.MaxPatterns {
		fmt.Fprintf(&rows, "AB-%03d-?*,vol,1,%s\n", i, until)
	}
	if err := os.WriteFile(many, []byte(rows.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	const rest = " --country FR --reason vol --case 2026/17 --until "
	playSteps(t, []step{
		{name: "create", args: "lists create partial --name Témoins --owner DNPJ --legal-basis L233-1 --tolerance pattern", out: []string{"tolerance    pattern\n"}},
		{name: "add", args: "entries add partial --plate ab-1??-* " + rest + until, out: []string{"plate     ab-1??-*\n"}},
		{name: "add again, written otherwise", args: "entries add partial --plate AB1*?? " + rest + until, out: []string{"plate     AB1*??\n"}},
		{name: "one entry", args: "lists", out: []string{"partial  Témoins  DNPJ   1        pattern"}},
		{name: "too loose", args: "entries add partial --plate A*" + rest + until, code: 2, err: []string{"\n  plate: needs at least 2 letters or digits beside its wildcards"}},
		{name: "another tolerance", args: "lists create partial --change --tolerance ocr", code: 2, err: []string{"The list holds entries with wildcards, which only tolerance pattern knows; withdraw the entries whose plate holds ? or *"}},
		{name: "too many", args: "lists import partial " + many, code: 2,
			err: []string{"The list would hold more entries than its tolerance allows, nothing has changed: it would hold 1001; with tolerance pattern it may hold 1000; withdraw"}},
		{name: "too many, a trial", args: "lists import partial --dry-run " + many, code: 2, err: []string{"it would hold 1001"}},
		{name: "still one", args: "lists show partial", out: []string{"entries      1\n"}},
	})
}

func TestOperatorCommands(t *testing.T) {
	newOperatorServer(t)
	dir := t.TempDir()
	csv := func(name, rows string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("plaque;motif;dossier;fin\n"+rows), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	until := time.Now().AddDate(0, 3, 0).Format("02/01/2006")
	good := csv("good.csv", "EF-456-GH;vol;2026/18;"+until+"\nGH-789-JK;vol;2026/19;"+until+"\n")
	bad := csv("bad.csv", "EF-456-GH;vol;2026/18;"+until+"\nGH,789;vol;2026/19;"+until+"\nJK-012-LM;;2026/19;hier\n")

	rejects := filepath.Join(dir, "rejects.csv")
	ncic := filepath.Join(dir, "ncic.txt")
	if err := os.WriteFile(ncic, []byte("HEADER\nV123456789LA057020020260309GK482TZ   CA2027MC2019YAMACYLMCBLK\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	playSteps(t, []step{
		{name: "no lists", args: "lists", err: []string{"no lists yet"}},
		{name: "no lists as JSON", args: "lists -o json", out: []string{`"lists": []`}, json: true},
		{name: "create", args: "lists create stolen --name Volés --owner DNPJ --legal-basis L233-1 --tolerance ocr --action intercept --priority high",
			out: []string{"list         stolen\n", "tolerance    ocr\n", "queue        patrol\n", "zones        not limited\n"}},
		{name: "create again", args: "lists create stolen --name X", code: 2, err: []string{`a list has the id "stolen" already; --change alters its settings`}},
		{name: "change", args: "lists create stolen --change --zone 69 --zone 38 -o json", out: []string{`"zones": [`, `"name": "Volés"`, `"tolerance": "ocr"`}, json: true},
		{name: "change what is not there", args: "lists create nowhere --change", code: 1, err: []string{`no list has the id "nowhere"`}},
		{name: "create without what is mandatory", args: "lists create Bad! --tolerance exact", code: 2,
			err: []string{"The values break rules; correct the fields named and send it again\n", "\n  id: must be", "\n  name: is mandatory\n", "\n  owner: is mandatory\n", "\n  legal_basis: is mandatory\n"}},
		{name: "an unknown word", args: "lists create x --tolerance fuzzy --action arrest --threshold NaN", code: 1, err: []string{"--tolerance: unknown tolerance; use one of: exact, ocr, near, pattern\n--threshold: must be a number from 0 to 1\n--action: unknown action"}},
		{name: "a threshold", args: "lists create stolen --change --threshold 0.35", out: []string{"tolerance    ocr\nthreshold    0.35\n"}},
		{name: "a threshold that means nothing", args: "lists create stolen --change --tolerance exact", code: 2, err: []string{"\n  threshold: counts with tolerance ocr and near only; give 0 or nothing with any other\n"}},
		{name: "no threshold again", args: "lists create stolen --change --threshold 0 -o json", out: []string{`"tolerance": "ocr",
  "queue"`}, json: true},
		{name: "free of zones again", args: "lists create stolen --change --zone=", out: []string{"not limited"}},
		{name: "add", args: "entries add stolen --plate AB-123-CD --country FR --reason vol --case 2026/17 --until " + until, out: []string{"plate     AB-123-CD\n", "action    intercept\n", "priority  high\n"}},
		{name: "add as JSON", args: "entries add stolen --plate - --country FR --reason vol --case 2026/17 --until " + until + " -o json", out: []string{`"plate": "AB-123-CD"`}, json: true},
		{name: "add what breaks rules", args: "entries add stolen --plate AB,1 --until 2020-01-01", code: 2, err: []string{"\n  plate: character 3 is not a letter or digit\n", "\n  case_ref: is mandatory\n"}},
		{name: "a bad date", args: "entries add stolen --until soon", code: 1, err: []string{"--until: is not a date; use yyyy-mm-dd"}},
		{name: "to a list that is not there", args: "entries add nowhere --plate AB-123-CD", code: 1, err: []string{"No list has that id; GET /v1/lists names the lists"}},
		{name: "the list", args: "lists", out: []string{"ID      NAME   OWNER  ENTRIES  TOLERANCE  QUEUE   ACTION     PRIORITY\n", "stolen  Volés  DNPJ   1        ocr        patrol  intercept  high\n"}},
		{name: "try an import", args: "lists import stolen " + good + " --dry-run", out: []string{"2 rows: 2 added, 0 changed, 0 the same\n", "a trial: nothing was changed\n"}},
		{name: "an import that is refused", args: "lists import stolen " + bad, code: 2,
			err: []string{"The file was not imported, nothing has changed: 2 of 3 rows break rules; correct", "\n  row 3: plate: character 3", "\n  row 4: reason: is mandatory\n", "\n  row 4: valid_until: is not a date"}},
		{name: "the same for a script", args: "lists import stolen -o json " + bad, code: 2, out: []string{`"rows": 3`, `"added": 1`, `"rejected": 2`, `"row": 4`, `"applied": false`}, err: []string{"row 3: plate"}, json: true},
		{name: "a file that cannot be imported, for a script", args: "lists import stolen -o json --format openalpr " + good, code: 2, out: []string{`"type": "urn:vigie:problem:import-file"`}, err: []string{"see the format openalpr"}, json: true},
		{name: "a file that lacks a default", args: "lists import stolen " + ncic, code: 2, err: []string{"\n  valid_until: ", "--valid-until or --valid-for"}},
		{name: "an extract of NCIC", args: "lists import stolen --valid-for 2d --dry-run " + ncic, out: []string{"1 rows: 1 added"}},
		{name: "defaults against each other", args: "lists import stolen --valid-for 2d --valid-until 2027-01-01 " + ncic, code: 1, err: []string{"valid-for"}},
		{name: "in part without a reject file", args: "lists import stolen --accept-partial " + bad, code: 1, err: []string{"--accept-partial: needs --reject-file"}},
		{name: "the reject file is the file", args: "lists import stolen --reject-file " + bad + " " + bad, code: 1, err: []string{"--reject-file: is the file that is imported"}},
		{name: "a reject file that cannot be written", args: "lists import stolen --accept-partial --reject-file " + dir + "/none/x.csv " + bad, code: 1, err: []string{"--reject-file: "}},
		{name: "a reject file of standard input", args: "lists import stolen --reject-file " + rejects + " -", code: 1, err: []string{"--reject-file: needs a file by its name"}},
		{name: "in part, a trial", args: "lists import stolen --dry-run --accept-partial --reject-file " + rejects + " " + bad, code: 2, out: []string{"3 rows: 1 added, 0 changed, 0 the same, 2 rejected\n", "a trial"}, err: []string{"Some rows would not be imported", "2 bad rows are in " + rejects}},
		{name: "an unknown format", args: "lists import stolen --format excel " + good, code: 1, err: []string{"--format: unknown format"}},
		{name: "an import", args: "lists import stolen " + good, out: []string{"2 rows: 2 added", "in effect everywhere, version"}},
		{name: "the same again", args: "lists import stolen " + good, out: []string{"2 rows: 0 added, 0 changed, 2 the same"}},
		{name: "a file that is not there", args: "lists import stolen " + dir + "/none.csv", code: 1, err: []string{"no such file"}},
		{name: "all entries", args: "entries list stolen", out: []string{"ENTRY  ", "AB-123-CD", "EF-456-GH", "GH-789-JK"}},
		{name: "some entries", args: "entries list stolen --limit 2", out: []string{"ENTRY"}, err: []string{"there are more; --limit 0 shows all"}},
		{name: "every entry as JSON", args: "entries list stolen --limit 0 -o json", out: []string{`"entries": [`}, json: true},
		{name: "would alert", args: "explain ab-123-cd --country FR --expect list=stolen", out: []string{"AB123CD, FR, syntax valid; lists at version", "would alert:\n", "stolen", "intercept"}},
		{name: "expected none", args: "explain AB-123-CD --country FR --expect none", code: 2, out: []string{"would alert:"}, err: []string{"expected alerts of no list, got stolen"}},
		{name: "expected another", args: "explain - --expect list=other -o json", code: 2, out: []string{`"hits": [`}, err: []string{"expected alerts of other, got stolen"}, json: true},
		{name: "no alert", args: "explain ZZ-999-ZZ --country FR --expect none", out: []string{"no alert"}},
		{name: "not a plate", args: "explain UNKNOWN", out: []string{"never matched: plate: no plate"}},
		{name: "a bad expectation", args: "explain X1 --expect stolen", code: 1, err: []string{"--expect: must be list=ID"}},
		{name: "withdraw without a reason", args: "entries withdraw stolen $ENTRY", code: 2, err: []string{"\n  reason: is mandatory"}},
		{name: "withdraw", args: "entries withdraw stolen $ENTRY --reason retrouvé", out: []string{"is withdrawn everywhere, version"}},
		{name: "withdraw again", args: "entries withdraw stolen $ENTRY --reason retrouvé", code: 1, err: []string{"The list has no entry of that id; it may be withdrawn already"}},
		{name: "no more", args: "explain AB-123-CD --country FR --expect none", out: []string{"no alert"}},
		{name: "drop", args: "lists drop stolen --reason fini", out: []string{"list stolen is withdrawn everywhere"}},
		{name: "show what is gone", args: "lists show stolen", code: 1, err: []string{"No list has that id"}},
		{name: "an unknown form", args: "lists drop stolen -o yaml", code: 1, err: []string{"must be table or json"}},
	})
}

func TestClientSaysWhatIsWrong(t *testing.T) {
	newOperatorServer(t)
	server := os.Getenv("VIGIE_SERVER")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + ln.Addr().String()
	ln.Close()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(operatorSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, token string
		args        []string
		code        int
		want        string
	}{
		{"token file", "", []string{"lists", "--token-file", file}, 0, "no lists yet"},
		{"no token", "", []string{"lists"}, 1, "no token: put the operator's token into VIGIE_TOKEN, or into a file named by --token-file"},
		{"no such file", "", []string{"lists", "--token-file", file + "x"}, 1, "--token-file: open "},
		{"wrong token", "wrong-secret-wrong-secret", []string{"lists"}, 1, "This token is not known here; check the token"},
		{"nobody there", operatorSecret, []string{"lists", "--server", nobody}, 1, "cannot reach " + nobody + " ("},
		{"not an address", operatorSecret, []string{"lists", "--server", "localhost:8080"}, 1, "--server: must be an address such as"},
		{"another path", operatorSecret, []string{"lists", "--server", server + "/nowhere"}, 1, "There is nothing at this address"},
		{"a name on the way", operatorSecret, []string{"lists", "show", "../../metrics"}, 1, "No list has that id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("VIGIE_TOKEN", tc.token)
			r := vigie(t, "", tc.args...)
			if r.code != tc.code || !strings.Contains(r.err, tc.want) {
				t.Errorf("exit code %d, want %d\ngot  %swant %s", r.code, tc.code, r.err, tc.want)
			}
			if strings.Contains(r.err+r.out, operatorSecret) || (tc.token != "" && strings.Contains(r.err, tc.token)) {
				t.Error("the token is shown")
			}
		})
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"Volés ≈ 2": "Volés ≈ 2", "a\x1b[2Jb": "a\uFFFD[2Jb", "a\tb\nc": "a\uFFFDb\uFFFDc", "\u202eabc": "\uFFFDabc",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
