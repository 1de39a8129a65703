package httpapi

import (
	"context"
	"io"
	"net/http"

	"vigie/sensors"
)

// readAcceptor takes reads in; sensors.Gateway is one. What it returns as
// accepted is stored safely. Errors are those of sensors.ParseBatch, or say that
// storing failed, and then the whole request may be sent again.
type readAcceptor interface {
	AcceptBody(ctx context.Context, contentType string, body io.Reader, limits sensors.Limits, opts sensors.AcceptOptions) (sensors.Result, error)
}

// maxReads bounds the body of a batch, before and after decompression.
const maxReads = 32 << 20

// postReads takes a batch. A read that is refused does not keep the others out;
// a batch of which nothing was accepted is an error, so that a sensor that sends
// rubbish is noticed by whoever looks at its status codes.
func (s *Server) postReads(w http.ResponseWriter, r *http.Request, who *Token) error {
	if err := s.admitSensor(who); err != nil {
		return err
	}
	body, err := plainBody(w, r, maxReads)
	if err != nil {
		return err
	}
	held := s.memory.charge(who.caller())
	defer held.release()
	res, err := s.cfg.Gateway.AcceptBody(r.Context(), r.Header.Get("Content-Type"), &metered{body, held},
		sensors.Limits{BodyBytes: maxReads}, sensors.AcceptOptions{Sensor: who.Sensor})
	if err != nil {
		return err
	}
	s.took(who, res.Accepted+len(res.Rejected))
	if res.Accepted == 0 && len(res.Rejected) > 0 {
		return allRejected(res.Rejected)
	}
	return writeJSON(w, http.StatusAccepted, res)
}
