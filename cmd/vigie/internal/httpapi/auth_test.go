package httpapi

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestEveryRouteAndRole asks every route without a token, with a wrong one and
// with one of each role. What the table does not allow is refused before anything
// of the request is looked at.
func TestEveryRouteAndRole(t *testing.T) {
	w := newWorld(t)
	w.alerts.put(testAlert("a1", "patrol"))
	for _, rt := range w.routes {
		method, path, _ := strings.Cut(rt.pattern, " ")
		path = strings.NewReplacer("{list}", "none", "{entry}", "none", "{alert}", "none", "{verb}", "take", "{file}", "app.js", "{format}", "auto", "{kind}", "KeepAlive", "{$}", "").Replace(path)
		if rt.stream {
			path += "?queue=foreign" // refused after the role was accepted, so that nothing streams
		}
		for _, tc := range []struct {
			who    string
			header []string
			role   Role
		}{
			{who: "nobody"},
			{who: "a wrong token", header: []string{"Bearer wrong-secret-0123456789"}},
			{who: "the empty token", header: []string{"Bearer "}},
			{who: "a digest for a token", header: []string{"Bearer " + hex.EncodeToString(digestOf("operator"))}},
			{who: "another scheme", header: []string{"Basic " + secrets["operator"]}},
			{who: "two tokens", header: []string{"Bearer " + secrets["operator"], "Bearer " + secrets["patrol"]}},
			{who: "sensor", header: []string{"Bearer " + secrets["sensor"]}, role: RoleSensor},
			{who: "operator", header: []string{"bearer " + secrets["operator"]}, role: RoleOperator},
			{who: "patrol", header: []string{"Bearer " + secrets["patrol"]}, role: RolePatrol},
			{who: "monitor", header: []string{"Bearer " + secrets["monitor"]}, role: RoleMonitor},
		} {
			req, err := http.NewRequest(method, w.URL()+path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header["Authorization"] = tc.header
			req.Header.Set("Content-Type", "application/json")
			res, err := client(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			var p Problem
			decodeProblem(t, res, &p)
			switch {
			case rt.roles == nil || slices.Contains(rt.roles, tc.role):
				if res.StatusCode == 401 || p.Type == "urn:vigie:problem:forbidden" {
					t.Errorf("%s as %s: %d %s, want it let in", rt.pattern, tc.who, res.StatusCode, p.Type)
				}
			case tc.role == "":
				if res.StatusCode != 401 || res.Header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s as %s: %d, want 401 and WWW-Authenticate", rt.pattern, tc.who, res.StatusCode)
				}
			default:
				if res.StatusCode != 403 || p.Type != "urn:vigie:problem:forbidden" {
					t.Errorf("%s as %s: %d %s, want 403", rt.pattern, tc.who, res.StatusCode, p.Type)
				}
			}
		}
	}
}

func digestOf(name string) []byte {
	d := sha256.Sum256([]byte(secrets[name]))
	return d[:]
}

// TestOpenAPI compares the routes with openapi.yaml: every one is described,
// with the same roles, and nothing else is.
func TestOpenAPI(t *testing.T) {
	var doc struct {
		OpenAPI string                    `yaml:"openapi"`
		Paths   map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	described := map[string][]string{}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			fields, ok := op.(map[string]any)
			if !ok {
				continue // parameters that all operations of a path share
			}
			roles := []string{}
			for _, r := range fields["x-roles"].([]any) {
				roles = append(roles, r.(string))
			}
			described[strings.ToUpper(method)+" "+path] = roles
			if _, open := fields["security"]; open != (len(roles) == 0) {
				t.Errorf("%s %s: security: [] stands beside x-roles: [] and only there", method, path)
			}
		}
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("openapi is %q, want 3.1", doc.OpenAPI)
	}
	beyond := &Server{} // a server that listens beyond this machine
	for _, rt := range beyond.table() {
		pattern := strings.TrimSuffix(rt.pattern, "{$}")
		roles, ok := described[pattern]
		if !ok {
			t.Errorf("%s is served and not described", pattern)
			continue
		}
		delete(described, pattern)
		want := []string{}
		for _, r := range rt.roles {
			want = append(want, string(r))
		}
		if !slices.Equal(roles, want) {
			t.Errorf("%s: described for %q, served for %q", pattern, roles, want)
		}
	}
	for pattern := range described {
		t.Errorf("%s is described and not served", pattern)
	}
}

func TestLoadTokens(t *testing.T) {
	good := `
- name: bri-12
  role: patrol
  queues: [patrol, discreet]
  token: a-token-of-some-length
- {name: a7, role: sensor, sensor: A7-1, sha256: "` + hex.EncodeToString(digestOf("bound")) + `"}
- {name: prometheus, role: monitor, token: another-token-of-some-length}
`
	ts, err := LoadTokens(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if got := ts.find("a-token-of-some-length"); got == nil || got.Name != "bri-12" || !got.mayWatch("discreet") || got.mayWatch("other") {
		t.Errorf("bri-12: got %+v", got)
	}
	if got := ts.find(secrets["bound"]); got == nil || got.Name != "a7" || got.Sensor != "A7-1" {
		t.Errorf("a7: got %+v", got)
	}
	if got := ts.find("a-token-of-some-lengtH"); got != nil {
		t.Errorf("a wrong token found %+v", got)
	}

	// JSON is YAML.
	if _, err := LoadTokens(strings.NewReader(`[{"name":"a","role":"operator","token":"` + secrets["operator"] + `"}]`)); err != nil {
		t.Errorf("JSON: %v", err)
	}

	const secret = "SECRET-0123456789-0123456789"
	for _, tc := range []struct{ name, in, want string }{
		{"empty", "", "holds no token"},
		{"not YAML", "- name: a\n   token: " + secret, "line 1: is not YAML"},
		{"not a list", "name: " + secret, "line 1: must be a list"},
		{"unknown key", "- name: a\n  role: operator\n  tokn: " + secret, `line 3: unknown key "tokn"`},
		{"secret for a key", "- name: a\n  " + secret + ": x", "line 2: unknown key; known are"},
		{"key twice", "- name: a\n  token: " + secret + "\n  token: x", "line 3: is not YAML, or a key stands there twice"},
		{"wrong kind", "- name: a\n  token: [" + secret + "]", "line 2: must be a list of items"},
		{"role", "- {name: a, role: admin, token: " + secret + "}", "line 1: role: must be sensor, operator, patrol or monitor"},
		{"no role", "- {name: a, token: " + secret + "}", "role: must be"},
		{"name", "- {name: A B, role: operator, token: " + secret + "}", "name: must be"},
		{"no token", "\n- {name: a, role: operator}", "line 2: needs either token or sha256"},
		{"both", "- {name: a, role: operator, token: " + secret + ", sha256: ab}", "needs either token or sha256"},
		{"short", "- {name: a, role: operator, token: short}", "has 5 characters, need at least 20"},
		{"digest", "- {name: a, role: operator, sha256: abc}", "sha256: must be 64 hex digits"},
		{"patrol without queues", "- {name: a, role: patrol, token: " + secret + "}", "queues: a token of role patrol needs"},
		{"operator with queues", "- {name: a, role: operator, queues: [x], token: " + secret + "}", "queues: only a token of role patrol"},
		{"patrol with sensor", "- {name: a, role: patrol, queues: [x], sensor: A7, token: " + secret + "}", "sensor: only a token of role sensor"},
		{"name twice", "- {name: a, role: operator, token: " + secret + "}\n- {name: a, role: operator, token: " + secret + "x}", `line 2: name: "a" is taken`},
		{"token twice", "- {name: a, role: operator, token: " + secret + "}\n- {name: b, role: operator, token: " + secret + "}", `line 2: token: is the same secret as that of "a"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := LoadTokens(strings.NewReader(tc.in))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q in it", err, tc.want)
			}
			if strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func FuzzLoadTokens(f *testing.F) {
	f.Add("- {name: a, role: operator, token: 0123456789-0123456789}")
	f.Add("- name: a\n  role: patrol\n  queues: [x]\n  sha256: 00")
	f.Add("a: &b [*b]")
	f.Fuzz(func(t *testing.T, in string) {
		ts, err := LoadTokens(strings.NewReader(in))
		if (ts == nil) == (err == nil) {
			t.Fatalf("tokens %v and error %v", ts, err)
		}
		if err != nil {
			return
		}
		for _, tok := range ts.all {
			if err := tok.validate(); err != nil {
				t.Errorf("loaded a token that breaks a rule: %v", err)
			}
		}
	})
}

func TestNewRandomToken(t *testing.T) {
	a, b := NewRandomToken(), NewRandomToken()
	if a == b || len(a) < len("vigie_")+43 || !strings.HasPrefix(a, "vigie_") {
		t.Errorf("got %d and %d characters, equal: %t", len(a), len(b), a == b)
	}
	if err := new(Tokens).Add(Token{Name: "a", Role: RoleOperator}, a); err != nil {
		t.Error(err)
	}
}
