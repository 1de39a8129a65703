package kafka

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go/sasl"
)

// scram is the client of RFC 5802 without channel binding, as Kafka speaks it (names and
// passwords are taken as UTF-8, without SASLprep). kafka-go's own needs three more modules.
type scram struct {
	name     string
	hash     func() hash.Hash
	user     string
	password string
	nonce    func() string
}

func scramSHA256(user, password string) sasl.Mechanism {
	return scram{"SCRAM-SHA-256", sha256.New, user, password, rand.Text}
}

func scramSHA512(user, password string) sasl.Mechanism {
	return scram{"SCRAM-SHA-512", sha512.New, user, password, rand.Text}
}

// maxIterations bounds what a false server can make us compute. Kafka allows up to 16384.
const maxIterations = 1 << 20

// Name is the mechanism as Kafka calls it.
func (s scram) Name() string { return s.name }

// Start returns the first message of the client.
func (s scram) Start(context.Context) (sasl.StateMachine, []byte, error) {
	escaped := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s.user)
	x := &scramExchange{scram: s, nonce: s.nonce()}
	x.first = "n=" + escaped + ",r=" + x.nonce
	return x, []byte("n,," + x.first), nil
}

// scramExchange is one authentication.
type scramExchange struct {
	scram
	nonce  string
	first  string // client-first-message-bare
	server []byte // expected ServerSignature; nil before the proof was sent
}

// Next answers a message of the server.
func (x *scramExchange) Next(_ context.Context, challenge []byte) (done bool, response []byte, err error) {
	fields := make(map[byte]string)
	for f := range strings.SplitSeq(string(challenge), ",") {
		if len(f) > 2 && f[1] == '=' {
			fields[f[0]] = f[2:]
		}
	}
	if e, ok := fields['e']; ok {
		return false, nil, fmt.Errorf("%s: the broker refuses the user or password (%s)", x.name, e)
	}
	if x.server != nil {
		v, err := base64.StdEncoding.DecodeString(fields['v'])
		if err != nil || subtle.ConstantTimeCompare(v, x.server) != 1 {
			return false, nil, errors.New(x.name + ": the broker could not prove that it knows the password")
		}
		return true, nil, nil
	}
	nonce := fields['r']
	salt, err := base64.StdEncoding.DecodeString(fields['s'])
	iterations, err2 := strconv.Atoi(fields['i'])
	if err != nil || err2 != nil || iterations < 1 || iterations > maxIterations || len(salt) == 0 ||
		len(nonce) <= len(x.nonce) || !strings.HasPrefix(nonce, x.nonce) {
		return false, nil, errors.New(x.name + ": the broker's challenge is malformed")
	}
	salted, err := pbkdf2.Key(x.hash, x.password, salt, iterations, x.hash().Size())
	if err != nil {
		return false, nil, fmt.Errorf("%s: %w", x.name, err)
	}
	final := "c=biws,r=" + nonce
	auth := x.first + "," + string(challenge) + "," + final
	clientKey := x.mac(salted, "Client Key")
	stored := x.hash()
	stored.Write(clientKey)
	proof := x.mac(stored.Sum(nil), auth)
	subtle.XORBytes(proof, proof, clientKey)
	x.server = x.mac(x.mac(salted, "Server Key"), auth)
	return false, []byte(final + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

func (x *scramExchange) mac(key []byte, msg string) []byte {
	m := hmac.New(x.hash, key)
	m.Write([]byte(msg))
	return m.Sum(nil)
}
