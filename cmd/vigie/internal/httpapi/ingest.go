package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"vigie/sensors"
	"vigie/sensors/ingest"
)

// messageIngester takes messages in the formats of vendors; sensors/ingest has one. What it returns
// as accepted is stored safely. Errors are ingest.ErrFormat and ingest.ErrMessage, followed by what is
// wrong in words that quote nothing; or they say that storing failed, and then the same message may
// be sent again.
type messageIngester interface {
	Ingest(ctx context.Context, in ingest.Message) (ingest.Result, error)
}

// wants200 are the formats whose senders are programs of which it is not known that they take any
// 2xx for success.
var wants200 = []string{"dahua", "platerecognizer"}

// postIngest takes a message of the format that the address names.
func (s *Server) postIngest(w http.ResponseWriter, r *http.Request, who *Token) error {
	return s.ingest(w, r, who, r.PathValue("format"))
}

// postDahua takes what Dahua's ITSAPI sends to addresses that cannot be set.
func (s *Server) postDahua(w http.ResponseWriter, r *http.Request, who *Token) error {
	return s.ingest(w, r, who, "dahua")
}

func (s *Server) ingest(w http.ResponseWriter, r *http.Request, who *Token, format string) error {
	if format != "auto" && !slices.Contains(s.cfg.Formats, format) {
		return s.unknownFormat()
	}
	source := r.URL.Query().Get("sensor")
	switch {
	case source != "" && !sensorID.MatchString(source):
		return &detailed{err: errBadParam, errs: []ProblemError{{Field: "sensor", Reason: "must be 1 to 64 letters, digits and - _ . :"}}}
	case source != "" && who.Sensor != "" && source != who.Sensor:
		return errForeign
	}
	if err := s.admitSensor(who); err != nil {
		return err
	}
	held := s.memory.charge(who.caller())
	defer held.release()
	plain, err := plainBody(w, r, s.cfg.Limits.MessageBytes)
	if err != nil {
		return err
	}
	body, err := held.readAll(plain, r.ContentLength)
	if err != nil {
		return err
	}
	res, err := s.cfg.Ingest.Ingest(r.Context(), ingest.Message{
		Format: format, ContentType: r.Header.Get("Content-Type"), Body: body, Sensor: who.Sensor, Source: source,
	})
	switch {
	case errors.Is(err, ingest.ErrFormat):
		return s.unknownFormat()
	case errors.Is(err, ingest.ErrMessage):
		_, reason, _ := strings.Cut(err.Error(), ingest.ErrMessage.Error()+": ")
		return &detailed{err: err, detail: reason}
	case err != nil:
		return err
	}
	s.took(who, res.Accepted+len(res.Rejected)+res.Suppressed+res.Quarantined)
	if len(res.Rejected) > 0 && res.Accepted+res.Suppressed+res.Quarantined == 0 && !res.Heartbeat {
		return allRejected(res.Rejected)
	}
	status := http.StatusAccepted
	if slices.Contains(wants200, format) {
		status = http.StatusOK
	}
	if res.Rejected == nil {
		res.Rejected = []sensors.Rejection{}
	}
	return writeJSON(w, status, res)
}

// unknownFormat is the problem of a message that nobody here can read.
func (s *Server) unknownFormat() error {
	return &detailed{err: ingest.ErrFormat, detail: "formats: auto, " + strings.Join(s.cfg.Formats, ", ")}
}
