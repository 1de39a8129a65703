package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vigie/cmd/vigie/internal/config"
)

func TestServerTLS(t *testing.T) {
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spec := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, spec, spec, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, private := write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)

	if got, err := serverTLS(config.HTTPS{}); got != nil || err != nil {
		t.Errorf("without files: %v, %v", got, err)
	}
	got, err := serverTLS(config.HTTPS{CertFile: cert, KeyFile: private, ClientCA: cert})
	if err != nil || got.MinVersion != tls.VersionTLS13 || len(got.Certificates) != 1 || got.ClientCAs == nil {
		t.Errorf("with files: %v, %v", got, err)
	}
	for _, tc := range []struct {
		name string
		c    config.HTTPS
		want string
	}{
		{"no such certificate", config.HTTPS{CertFile: "none.pem", KeyFile: private}, "http.tls.cert_file"},
		{"a key for a certificate", config.HTTPS{CertFile: private, KeyFile: private}, "http.tls.cert_file"},
		{"no such authority", config.HTTPS{CertFile: cert, KeyFile: private, ClientCA: "none.pem"}, "http.tls.client_ca"},
		{"a key for an authority", config.HTTPS{CertFile: cert, KeyFile: private, ClientCA: private}, "holds no PEM certificate"},
	} {
		if _, err := serverTLS(tc.c); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q in it", tc.name, err, tc.want)
		}
	}
}
