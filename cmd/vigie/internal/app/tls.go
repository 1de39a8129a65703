package app

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"vigie/cmd/vigie/internal/config"
)

// loadTLS reads the files that a TLS section names; key is where it stands in
// the configuration. It returns nil when TLS is off.
func loadTLS(c config.TLS, key string) (*tls.Config, error) {
	if !c.Enabled {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%s.ca_file: %w", key, err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s.ca_file: %s holds no PEM certificate", key, c.CAFile)
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return nil, fmt.Errorf("%s: cert_file and key_file go together", key)
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s.cert_file: %w", key, err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}
