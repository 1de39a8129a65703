package httpapi

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A signed request carries no secret that could be taken from it, so that it suits a sensor whose
// link has no TLS. It names its sensor in Vigie-Sensor, and in Vigie-Signature
//
//	t=<ms since 1970>,n=<nonce>,v1=<hex of an HMAC-SHA256>
//
// with the key of that sensor over t, n, the method, the target of the request line (the path with
// its query) and the body as sent, each but the last followed by a line feed, which none of them
// can hold. With a shell and openssl:
//
//	t=$(date +%s%3N) n=$(openssl rand -hex 16)
//	v1=$({ printf '%s\n%s\nPOST\n/v1/ingest/auto\n' $t $n; cat message; } | openssl dgst -sha256 -hmac "$KEY" -r | cut -d' ' -f1)
//
// Each try is signed anew: what was sent once is refused the second time.
const (
	headerSignature = "Vigie-Signature"
	headerSensor    = "Vigie-Sensor"
)

// maxSigned bounds the body of a signed request, which is held whole before it is believed.
const maxSigned = 8 << 20

var (
	nonceText = regexp.MustCompile(`^[A-Za-z0-9_-]{16,64}$`)
	timeText  = regexp.MustCompile(`^[0-9]{1,15}$`)
)

// signature is the header Vigie-Signature.
type signature struct {
	t     int64 // ms since 1970
	time  string
	nonce string
	mac   []byte
}

// parseSignature reads the header. Each part stands there once, and nothing else does.
func parseSignature(header string) (sig signature, ok bool) {
	parts := strings.Split(header, ",")
	if len(parts) != 3 {
		return sig, false
	}
	for _, part := range parts {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch {
		case name == "t" && sig.time == "" && timeText.MatchString(value):
			sig.time = value
			sig.t, _ = strconv.ParseInt(value, 10, 64) // 15 digits fit
		case name == "n" && sig.nonce == "" && nonceText.MatchString(value):
			sig.nonce = value
		case name == "v1" && sig.mac == nil:
			mac, err := hex.DecodeString(value)
			if err != nil || len(mac) != sha256.Size {
				return sig, false
			}
			sig.mac = mac
		default:
			return sig, false
		}
	}
	return sig, true
}

// valid reports whether sig was made with key over the request.
func (sig *signature) valid(key []byte, r *http.Request, body []byte) bool {
	mac := hmac.New(sha256.New, key)
	for _, part := range []string{sig.time, sig.nonce, r.Method, r.RequestURI} {
		io.WriteString(mac, part+"\n") //nolint:errcheck // a hash takes everything
	}
	mac.Write(body)
	return hmac.Equal(mac.Sum(nil), sig.mac)
}

// verify returns the token that signed a request, and leaves the body to be read again. What costs
// nothing is checked first: a body is read only for a sensor that has a key and a time that is
// near. Its errors are errBadSignature, errStale, errReplayed, errNonces, errForbidden,
// errTooManyFailures, and those of the body.
func (s *Server) verify(rt *route, w http.ResponseWriter, r *http.Request) (*Token, error) {
	if !rt.allows(RoleSensor) {
		return nil, errForbidden
	}
	header, sensor := r.Header.Values(headerSignature), r.Header.Values(headerSensor)
	if len(header) != 1 || len(sensor) != 1 {
		return nil, errBadSignature
	}
	sig, ok := parseSignature(header[0])
	signers := s.cfg.Tokens.signing[sensor[0]]
	if !ok || len(signers) == 0 {
		return nil, errBadSignature
	}
	now := s.cfg.Clock().UnixMilli()
	if window := s.cfg.Limits.ReplayWindow.Milliseconds(); sig.t < now-window || sig.t > now+window {
		return nil, errStale
	}
	// Others at the same address, which may be a proxy, spend nothing of this unless they sign for
	// the same sensor.
	claim := signer{addressOf(r), signers[0].Sensor}
	if !s.forgeries.left(claim, time.Now()) {
		return nil, errTooManyFailures
	}
	unverified := s.unverified.charge(claim.from.String())
	defer unverified.release()
	body, err := unverified.readAll(&arriving{r: http.MaxBytesReader(w, r.Body, maxSigned)}, r.ContentLength)
	if err != nil {
		return nil, err
	}
	for _, t := range signers {
		if !sig.valid(t.key, r, body) {
			continue
		}
		if err := s.replays.first(t.Sensor, sig.nonce, sig.t, now); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		return t, nil
	}
	s.forgeries.allow(claim, time.Now())
	return nil, errBadSignature
}

// maxNonces is the most signed requests of one sensor that are remembered, whatever the limits say:
// about 50 MiB. It is enough for 500 requests a second and the longest window, 15 minutes.
const maxNonces = 1 << 20

// noncesFor is how many signed requests of one sensor are remembered. One whose clock is ahead by
// the window is remembered for twice the window; the same again is for those that came above the
// rate, which are remembered though they are refused, and keeps the sweeps far apart.
func noncesFor(l *SensorLimits) int {
	most := 4 * l.ReplayWindow.Seconds() * float64(l.RequestsPerSecond)
	if l.RequestsPerSecond < 0 || most > maxNonces {
		return maxNonces
	}
	return max(1, int(most))
}

// replays remembers the signed requests of the last minutes, so that none is taken twice. Only what
// was signed with the key of a sensor gets here: the sensors are those of the token file, and the
// memory of one is bounded and its own.
//
// What the process knew is gone with it: a request that was taken just before a restart is taken
// again by the next process for as long as its time is near. Reads are known by their id, so that
// this changes nothing.
type replays struct {
	window int64 // ms that the time of a request may be off
	max    int   // per sensor

	mu   sync.Mutex
	seen map[string]*nonces // by sensor
}

// nonces are those of one sensor: a digest of each, and until when it must be remembered.
type nonces struct {
	until map[[16]byte]int64 // ms
	sweep int                // size from which those that are over are dropped
	next  int64              // ms: no sweep before
}

// first records a request, or returns errReplayed when it came before, errNonces when there are too
// many to tell.
func (rp *replays) first(sensor, nonce string, t, now int64) error {
	digest := sha256.Sum256([]byte(nonce))
	key := [16]byte(digest[:16])
	rp.mu.Lock()
	defer rp.mu.Unlock()
	n := rp.seen[sensor]
	if n == nil {
		n = &nonces{until: make(map[[16]byte]int64), sweep: 64}
		rp.seen[sensor] = n
	}
	if until, ok := n.until[key]; ok && until >= now {
		return errReplayed
	}
	if len(n.until) >= n.sweep && now > n.next {
		n.next = now + rp.window
		for k, until := range n.until {
			if until < now {
				delete(n.until, k)
			} else {
				n.next = min(n.next, until)
			}
		}
		n.next = max(n.next, now+rp.window/64) // a sensor that floods does not make each request a sweep
		n.sweep = min(max(64, 2*len(n.until)), rp.max)
	}
	if len(n.until) >= rp.max {
		return errNonces
	}
	n.until[key] = t + rp.window
	return nil
}

// isFailedAuth reports whether err says that somebody claimed to be who he is not.
func isFailedAuth(err error) bool {
	for _, failed := range []error{errBadToken, errBadSignature, errBadCert, errContradiction} {
		if errors.Is(err, failed) {
			return true
		}
	}
	return false
}
