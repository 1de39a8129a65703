package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"vigie/cmd/vigie/internal/httpapi"
)

// exitError ends the program with a code other than 1. err may be nil when
// everything was said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// refused says that the data was at fault, not the program or the network.
func refused(err error) error { return &exitError{code: 2, err: err} }

// outputValue is the flag -o. It is checked before a command does anything.
type outputValue struct{ to *string }

func (o outputValue) String() string {
	if o.to == nil {
		return ""
	}
	return *o.to
}

func (o outputValue) Set(s string) error {
	if s != "table" && s != "json" {
		return errors.New("must be table or json")
	}
	*o.to = s
	return nil
}

func (o outputValue) Type() string { return "table|json" }

// outputFlag gives a command, and those below it, the flag -o.
func outputFlag(cmd *cobra.Command, output *string) {
	*output = "table"
	cmd.PersistentFlags().VarP(outputValue{output}, "output", "o", "form of the result on standard output")
}

// print writes a result: v as the only JSON document on standard output, or for
// people what table writes.
func print(cmd *cobra.Command, output string, v any, table func()) error {
	if output != "json" {
		table()
		return nil
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// client speaks to a server as an operator. The token never is a flag: it would
// stand in the list of processes and in the history of the shell.
type client struct {
	server    string
	tokenFile string
	output    string
}

func (c *client) register(cmd *cobra.Command) {
	server := os.Getenv("VIGIE_SERVER")
	if server == "" {
		server = "http://127.0.0.1:8080"
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.server, "server", server, "address of the server (or VIGIE_SERVER); `url`")
	flags.StringVar(&c.tokenFile, "token-file", "", "file that holds the operator's token (or the token itself in VIGIE_TOKEN); `file`")
	outputFlag(cmd, &c.output)
}

// print writes the result of a command; see the function.
func (c *client) print(cmd *cobra.Command, v any, table func(w io.Writer)) error {
	return print(cmd, c.output, v, func() {
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
		table(w)
		w.Flush()
	})
}

// token is the secret that the requests carry.
func (c *client) token() (string, error) {
	secret := os.Getenv("VIGIE_TOKEN")
	if c.tokenFile != "" {
		b, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		secret = string(b)
	}
	if secret = strings.TrimSpace(secret); secret == "" {
		return "", errors.New("no token: put the operator's token into VIGIE_TOKEN, or into a file named by --token-file")
	}
	return secret, nil
}

// get, post and remove send a request without or with a JSON body and decode the
// answer into out.
func (c *client) get(cmd *cobra.Command, path string, out any) error {
	return c.do(cmd, http.MethodGet, path, "", nil, out)
}

func (c *client) post(cmd *cobra.Command, path string, in, out any) error {
	return c.sendJSON(cmd, http.MethodPost, path, in, out)
}

func (c *client) remove(cmd *cobra.Command, path, reason string) (httpapi.Withdrawn, error) {
	var out httpapi.Withdrawn
	err := c.sendJSON(cmd, http.MethodDelete, path, httpapi.WithdrawRequest{Reason: reason}, &out)
	return out, err
}

func (c *client) sendJSON(cmd *cobra.Command, method, path string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.do(cmd, method, path, "application/json", bytes.NewReader(b), out)
}

// plainTimeout is how long a request may take. A large import has no limit but
// the patience of the person, who can see it and stop it.
const plainTimeout = 30 * time.Second

// do sends a request. An answer that is no success is an *apiError, which with
// -o json goes to standard output too, so that a script always has one document.
func (c *client) do(cmd *cobra.Command, method, path, contentType string, body io.Reader, out any) error {
	base, err := url.Parse(c.server)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return errors.New("--server: must be an address such as http://127.0.0.1:8080")
	}
	secret, err := c.token()
	if err != nil {
		return err
	}
	if base.Scheme == "http" && !isLoopback(base.Hostname()) {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: the token travels to %s in clear; https protects it\n", base.Host)
	}
	ctx := cmd.Context()
	if contentType != "text/csv" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, plainTimeout)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.server, "/")+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	defer transport.CloseIdleConnections()
	hc := &http.Client{
		Transport: transport,
		// The token is meant for this server alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := hc.Do(req)
	if err != nil {
		return c.unreachable(cmd.Context(), err)
	}
	defer res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return c.failed(cmd, res)
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("%s answered with something else than Vigie does; check --server", c.server)
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// unreachable says in words of use why a server did not answer.
func (c *client) unreachable(ctx context.Context, err error) error {
	var op *net.OpError
	switch {
	case ctx.Err() != nil:
		return errors.New("stopped before the server answered; whether the change was made is not known, repeating it is safe")
	case errors.As(err, &op) && op.Op == "dial":
		return fmt.Errorf("cannot reach %s (%w); is the server running, and is --server or VIGIE_SERVER right?", c.server, op.Err)
	default:
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("%s did not answer (%w); repeating the command is safe", c.server, err)
	}
}

// failed turns an answer that is no success into an error. Data that was refused
// ends the program with code 2.
func (c *client) failed(cmd *cobra.Command, res *http.Response) error {
	var p httpapi.Problem
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil || json.Unmarshal(b, &p) != nil || p.Title == "" {
		return fmt.Errorf("%s answered %s, which Vigie does not; check --server", c.server, res.Status)
	}
	if c.output == "json" {
		if err := print(cmd, c.output, &p, nil); err != nil {
			return err
		}
	}
	if p.Status == http.StatusUnprocessableEntity {
		return refused(&apiError{p})
	}
	return &apiError{p}
}

// apiError is a problem as a person reads it: one line for what and what to do,
// and one for each thing that is wrong.
type apiError struct{ httpapi.Problem }

// maxErrorLines is how many things that are wrong are shown; -o json shows all.
const maxErrorLines = 20

func (e *apiError) Error() string {
	var b strings.Builder
	b.WriteString(clean(e.Title))
	if e.Detail != "" {
		b.WriteString(": " + clean(e.Detail))
	}
	if e.Mend != "" {
		b.WriteString("; " + clean(e.Mend))
	}
	for i, f := range e.Errors {
		if i == maxErrorLines {
			fmt.Fprintf(&b, "\n  and %d more; -o json shows them all", len(e.Errors)-i)
			break
		}
		b.WriteString("\n  ")
		if f.Row > 0 {
			fmt.Fprintf(&b, "row %d: ", f.Row)
		}
		if name := f.Field + f.Column; name != "" {
			b.WriteString(clean(name) + ": ")
		}
		b.WriteString(clean(f.Reason))
	}
	return b.String()
}

// clean makes a text safe for a terminal: nothing in it moves the cursor, breaks
// a table or turns the direction of writing.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return '\uFFFD'
		}
		return r
	}, s)
}

// row writes one row of a table, with a dash in the place of nothing.
func row(w io.Writer, cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		if texts[i] = clean(fmt.Sprint(cell)); texts[i] == "" {
			texts[i] = "-"
		}
	}
	fmt.Fprintln(w, strings.Join(texts, "\t"))
}

// plateArg is a plate given on the command line, or with "-" on standard input,
// which keeps it out of the list of processes and the history of the shell.
func plateArg(cmd *cobra.Command, arg string) (string, error) {
	if arg != "-" {
		return arg, nil
	}
	b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<10))
	if err != nil {
		return "", fmt.Errorf("read the plate from standard input: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// day is a moment as people write it, in a zone that they see in the result.
const day = "2006-01-02 15:04 MST"
