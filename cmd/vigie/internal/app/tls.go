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
		var err error
		if out.RootCAs, err = authorities(c.CAFile, key+".ca_file"); err != nil {
			return nil, err
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

// serverTLS reads the files of http.tls. It returns nil when the server is to speak plain HTTP.
func serverTLS(c config.HTTPS) (*tls.Config, error) {
	if c.CertFile == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("http.tls.cert_file: %w", err)
	}
	out := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	if c.ClientCA != "" {
		if out.ClientCAs, err = authorities(c.ClientCA, "http.tls.client_ca"); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// authorities reads the certificates of a PEM file; key is the setting that names it.
func authorities(path, key string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s holds no PEM certificate", key, path)
	}
	return pool, nil
}
