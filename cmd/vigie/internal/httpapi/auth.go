package httpapi

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// Role is what a token may do. A token has exactly one.
type Role string

const (
	RoleSensor   Role = "sensor"   // hands in reads
	RoleOperator Role = "operator" // keeps lists and entries
	RolePatrol   Role = "patrol"   // receives and answers the alerts of its queues
	RoleMonitor  Role = "monitor"  // reads /metrics
)

var allRoles = []Role{RoleSensor, RoleOperator, RolePatrol, RoleMonitor}

// Token is one line of the token file. Only the digest of the secret is kept.
type Token struct {
	Name   string   // who: the actor in the control log and on alerts
	Role   Role     // what
	Sensor string   // for RoleSensor: the only sensor it may speak for; empty means any
	Queues []string // for RolePatrol: the queues it may see; never empty there

	digest [sha256.Size]byte
	key    []byte // of a token that signs in place of being sent; see signature.go
}

// mayWatch reports whether the token may see the alerts of a queue.
func (t *Token) mayWatch(queue string) bool {
	return t.Role == RolePatrol && slices.Contains(t.Queues, queue)
}

// Tokens is the set of tokens that a Server accepts. It does not change once made.
type Tokens struct {
	all []*Token
	// byPrefix finds the few tokens whose digest begins alike. What an attacker
	// can learn from the time of a map access is a prefix of the digest of his
	// own guess, which he knows; the digest itself is compared in constant time.
	byPrefix map[[8]byte][]*Token
	// signing has the tokens with a key, by the sensor that they speak for.
	signing map[string][]*Token
}

// Len is the number of tokens.
func (ts *Tokens) Len() int { return len(ts.all) }

// Add adds a token with its secret. It refuses what LoadTokens refuses.
func (ts *Tokens) Add(t Token, secret string) error {
	if len(secret) < minSecret {
		return fmt.Errorf("token: has %d characters, need at least %d; take 32 random bytes, for example from: openssl rand -base64 32", len(secret), minSecret)
	}
	return ts.add(t, sha256.Sum256([]byte(secret)))
}

// AddKey adds a token that signs requests with a key and is never sent itself. It must be of role
// sensor and bound to one, by whose id the key is found. A sensor may have several, while a key is
// changed for another. AddKey refuses what LoadTokens refuses.
func (ts *Tokens) AddKey(t Token, key string) error {
	switch {
	case t.Role != RoleSensor || t.Sensor == "":
		return errors.New("hmac_key: only a token of role sensor that is bound to a sensor signs; give it role: sensor and a sensor")
	case len(key) < minSecret:
		return fmt.Errorf("hmac_key: has %d characters, need at least %d; take 32 random bytes, for example from: openssl rand -base64 32", len(key), minSecret)
	}
	t.key = []byte(key)
	return ts.add(t, sha256.Sum256(t.key))
}

func (ts *Tokens) add(t Token, digest [sha256.Size]byte) error {
	if err := t.validate(); err != nil {
		return err
	}
	for _, other := range ts.all {
		if other.Name == t.Name {
			return fmt.Errorf("name: %q is taken; each token needs a name of its own", t.Name)
		}
		if other.digest == digest {
			return fmt.Errorf("token: is the same secret as that of %q; give each its own", other.Name)
		}
	}
	t.digest = digest
	t.Queues = slices.Clone(t.Queues)
	ts.all = append(ts.all, &t)
	if t.key != nil {
		if ts.signing == nil {
			ts.signing = make(map[string][]*Token)
		}
		ts.signing[t.Sensor] = append(ts.signing[t.Sensor], &t)
		return nil
	}
	if ts.byPrefix == nil {
		ts.byPrefix = make(map[[8]byte][]*Token)
	}
	p := [8]byte(digest[:8])
	ts.byPrefix[p] = append(ts.byPrefix[p], &t)
	return nil
}

// find returns the token of a secret, nil when there is none.
func (ts *Tokens) find(secret string) *Token {
	digest := sha256.Sum256([]byte(secret))
	var found *Token
	for _, t := range ts.byPrefix[[8]byte(digest[:8])] {
		if subtle.ConstantTimeCompare(t.digest[:], digest[:]) == 1 {
			found = t
		}
	}
	return found
}

const minSecret = 20 // characters; a random one has 43 and more

var (
	tokenName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	shortKey  = regexp.MustCompile(`^[A-Za-z0-9_]{1,20}$`)
)

func (t *Token) validate() error {
	switch {
	case !tokenName.MatchString(t.Name):
		return errors.New("name: must be 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit")
	case !slices.Contains(allRoles, t.Role):
		return errors.New("role: must be sensor, operator, patrol or monitor")
	case t.Sensor != "" && t.Role != RoleSensor:
		return fmt.Errorf("sensor: only a token of role sensor is bound to a sensor, not one of role %s", t.Role)
	case len(t.Queues) > 0 && t.Role != RolePatrol:
		return fmt.Errorf("queues: only a token of role patrol has queues, not one of role %s", t.Role)
	case len(t.Queues) == 0 && t.Role == RolePatrol:
		return errors.New("queues: a token of role patrol needs the queues it may see, such as [patrol]")
	case slices.Contains(t.Queues, ""):
		return errors.New("queues: a queue name is empty")
	}
	return nil
}

// LoadTokens reads a token file: YAML (of which JSON is a part), one item per token.
//
//   - name: bri-12            # 1 to 63 of a-z 0-9 . _ -
//     role: patrol            # sensor, operator, patrol or monitor
//     queues: [patrol]        # patrol only, and mandatory there
//     token: <at least 20 characters>
//   - name: a7-gateway
//     role: sensor
//     sensor: A7-118-2        # sensor only, optional: the one sensor it speaks for
//     sha256: <64 hex digits> # in place of token: the SHA-256 of its characters
//   - name: a7-camera-2
//     role: sensor
//     sensor: A7-118-3
//     hmac_key: <at least 20 characters> # in place of token: signs, is never sent
//
// Errors name the line and never show a secret.
func LoadTokens(r io.Reader) (*Tokens, error) {
	specs, err := decodeSpecs(r)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("token file: %s", describeYAML(err))
	}
	if len(specs) == 0 {
		return nil, errors.New("token file: holds no token; each item needs name, role and token")
	}
	ts := new(Tokens)
	for _, spec := range specs {
		if err := spec.addTo(ts); err != nil {
			return nil, fmt.Errorf("token file: line %d: %w", spec.line, err)
		}
	}
	return ts, nil
}

// decodeSpecs decodes the file. The decoder panics on some texts that are not
// YAML lists, such as a scalar with a tag; a typing mistake must not end so.
func decodeSpecs(r io.Reader) (specs []tokenSpec, err error) {
	defer func() {
		if recover() != nil {
			specs, err = nil, errors.New("not YAML")
		}
	}()
	err = yaml.NewDecoder(r, yaml.DisallowUnknownField()).Decode(&specs)
	return specs, err
}

// tokenSpec is an item of the token file as written.
type tokenSpec struct {
	Name   string   `yaml:"name"`
	Role   Role     `yaml:"role"`
	Sensor string   `yaml:"sensor"`
	Queues []string `yaml:"queues"`
	Token  string   `yaml:"token"`
	SHA256 string   `yaml:"sha256"`
	Key    string   `yaml:"hmac_key"`

	line int
}

// UnmarshalYAML keeps the line of the item for error messages.
func (s *tokenSpec) UnmarshalYAML(node ast.Node) error {
	type fields tokenSpec
	var f fields
	if err := yaml.NodeToValue(node, &f, yaml.DisallowUnknownField()); err != nil {
		return err
	}
	*s = tokenSpec(f)
	s.line = node.GetToken().Position.Line
	return nil
}

func (s *tokenSpec) addTo(ts *Tokens) error {
	t := Token{Name: s.Name, Role: s.Role, Sensor: s.Sensor, Queues: s.Queues}
	given := 0
	for _, secret := range []string{s.Token, s.SHA256, s.Key} {
		if secret != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return errors.New("needs either token or sha256, or hmac_key in place of both")
	case s.Token != "":
		return ts.Add(t, s.Token)
	case s.Key != "":
		return ts.AddKey(t, s.Key)
	}
	digest, err := hex.DecodeString(s.SHA256)
	if err != nil || len(digest) != sha256.Size {
		return errors.New("sha256: must be 64 hex digits")
	}
	return ts.add(t, [sha256.Size]byte(digest))
}

// describeYAML says where a file is wrong without quoting it: the usual message
// shows the source, and with it the secret on the line above.
func describeYAML(err error) string {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil {
		return "is not YAML"
	}
	line := at.GetToken().Position.Line
	var unknown *yaml.UnknownFieldError
	switch {
	case errors.As(err, &unknown) && shortKey.MatchString(at.GetToken().Value):
		return fmt.Sprintf("line %d: unknown key %q; known are name, role, sensor, queues, token, sha256, hmac_key", line, at.GetToken().Value)
	case errors.As(err, &unknown):
		return fmt.Sprintf("line %d: unknown key; known are name, role, sensor, queues, token, sha256, hmac_key", line)
	case errors.As(err, new(*yaml.SyntaxError)):
		return fmt.Sprintf("line %d: is not YAML, or a key stands there twice", line)
	default:
		return fmt.Sprintf("line %d: must be a list of items with text values, queues a list of texts", line)
	}
}

// NewRandomToken returns a new secret of 256 random bits. The prefix lets
// scanners for leaked secrets find it.
func NewRandomToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails; see crypto/rand
	return "vigie_" + base64.RawURLEncoding.EncodeToString(b[:])
}

// authenticate says who sent a request. A client certificate that names a sensor is an identity by
// itself; a token or signature beside it must not say another. The errors are errNoToken,
// errBadToken, errTwoWays, errBadCert, errExpired, errContradiction and those of verify.
func (s *Server) authenticate(rt *route, w http.ResponseWriter, r *http.Request) (*Token, error) {
	certified, err := certifiedSensor(r, s.cfg.Clock())
	if err != nil {
		return nil, err
	}
	var who *Token
	header := r.Header.Values("Authorization")
	switch signed := len(r.Header.Values(headerSignature)) > 0; {
	case signed && len(header) > 0:
		return nil, errTwoWays
	case signed:
		who, err = s.verify(rt, w, r)
	case len(header) > 0:
		who, err = s.tokenOf(header, r)
	case certified != "":
		return &Token{Name: "cert:" + certified, Role: RoleSensor, Sensor: certified}, nil
	default:
		return nil, errNoToken
	}
	switch {
	case err != nil:
		return nil, err
	case certified == "" || who.Sensor == certified:
		return who, nil
	case who.Role != RoleSensor || who.Sensor != "":
		return nil, errContradiction
	}
	narrowed := *who
	narrowed.Sensor = certified
	return &narrowed, nil
}

// tokenOf returns the token of an Authorization header: Bearer, or Basic with the token for a
// password, which is all that many cameras can do. Basic is for sensors alone, since a browser
// sends it unasked; its user name is not looked at.
func (s *Server) tokenOf(header []string, r *http.Request) (*Token, error) {
	if len(header) > 1 {
		return nil, errBadToken
	}
	scheme, secret, ok := strings.Cut(header[0], " ")
	switch {
	case ok && strings.EqualFold(scheme, "Bearer"):
		if t := s.cfg.Tokens.find(strings.TrimSpace(secret)); t != nil {
			return t, nil
		}
	case ok && strings.EqualFold(scheme, "Basic"):
		_, password, _ := r.BasicAuth()
		if t := s.cfg.Tokens.find(password); t != nil && t.Role == RoleSensor {
			return t, nil
		}
	}
	return nil, errBadToken
}

// certifiedSensor returns the sensor that a client certificate belongs to, empty when there is no
// certificate or it names none. It stands in the certificate as a URI among the alternative names,
// vigie:sensor:<id>, and nowhere else: a common name means something different in every house.
// The certificate itself was verified in the handshake, but a connection may outlive it.
func certifiedSensor(r *http.Request, now time.Time) (string, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", nil
	}
	cert := r.TLS.VerifiedChains[0][0]
	if now.After(cert.NotAfter) {
		return "", errExpired
	}
	id := ""
	for _, uri := range cert.URIs {
		if uri.Scheme != "vigie" {
			continue
		}
		name, ok := strings.CutPrefix(uri.Opaque, "sensor:")
		if !ok || !sensorID.MatchString(name) || id != "" {
			return "", errBadCert
		}
		id = name
	}
	return id, nil
}

// sensorID is what sensors.Read takes for the id of a sensor.
var sensorID = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)
