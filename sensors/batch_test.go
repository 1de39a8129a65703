package sensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// message is a vigie.v1.Read of a sensor behind its length.
func message(sensor string) string {
	b, err := AppendProto(nil, &Read{Sensor: sensor})
	if err != nil {
		panic(err)
	}
	return string(append(binary.AppendUvarint(nil, uint64(len(b))), b...))
}

func TestParseBatch(t *testing.T) {
	large := strings.Repeat(" ", 300)
	for _, tt := range []struct {
		name        string
		contentType string
		body        string
		sensors     string      // of the reads taken, joined by a space
		rejected    []Rejection // Reason is the beginning
		err         string
	}{
		{name: "array", contentType: "application/json", body: `[{"sensor":"a"}, {"sensor":"b"}]`, sensors: "a b"},
		{name: "no content type", body: `[{"sensor":"a"}]`, sensors: "a"},
		{name: "charset", contentType: "Application/JSON; charset=UTF-8", body: `[{"sensor":"a"}]`, sensors: "a"},
		{name: "one read", body: " {\"sensor\":\"a\"}\n", sensors: "a"},
		{name: "empty array", body: ` [ ] `},
		{name: "bad elements", body: `[5,{"sensor":"a"},{"sensor":1},null,{"sensor":"b"},{"plate":"A1","plate":"B2"},"x",[{}],{"sensor":"c"}]`, sensors: "a b c",
			rejected: []Rejection{{0, "", "must be an object"}, {2, "sensor", "must be a string (byte"}, {3, "", "must be an object"},
				{5, "plate", "name is given twice (byte"}, {6, "", "must be an object"}, {7, "", "must be an object"}}},
		{name: "bad one read", body: `{"PLATE":"A1"}`, rejected: []Rejection{{0, "plate", "name must be written"}}},
		{name: "bad UTF-8 in one element", body: "[{\"sensor\":\"a\"},{\"plate\":\"\xff\"}]", sensors: "a", rejected: []Rejection{{1, "plate", "is not valid UTF-8"}}},
		{name: "large element", body: `[{"sensor":"a"},{"make":"` + large + `"},{"sensor":"b"}]`, sensors: "a b",
			rejected: []Rejection{{1, "", "is larger than 256 bytes"}}},
		{name: "array that ends too early", body: `[{"sensor":"a"},`, err: "byte 16 of the body: the JSON ends too early; send the whole array"},
		{name: "element that ends too early", body: `[{"sensor":"a`, err: "the JSON ends too early"},
		{name: "broken syntax", body: `[{"sensor":"a"},{sensor:"b"}]`, err: "byte 17 of the body: is not valid JSON; send an array of reads"},
		{name: "second array", body: `[{"sensor":"a"}][]`, err: "byte 17 of the body: has data after the end"},
		{name: "lines sent as JSON", body: "{\"sensor\":\"a\"}\n{\"sensor\":\"b\"}", err: "has data after the end; send one array, or one read a line as application/x-ndjson"},
		{name: "nothing", body: "", err: "the JSON ends too early"},
		{name: "byte order mark", body: "\ufeff[]", err: "byte 0 of the body: is not valid JSON"},
		{name: "number", body: "5", err: "is not valid JSON; send an array of reads"},
		{name: "too many", body: "[{},{},{},{},{},{},{},{},{},{},{}]", err: ErrTooManyReads.Error()},
		{name: "too large a body", body: "[" + strings.Repeat(" ", 5000) + "]", err: ErrBodyTooLarge.Error()},

		{name: "lines", contentType: "application/x-ndjson", body: "{\"sensor\":\"a\"}\n\r\n \n {\"sensor\":\"b\"} \r\n{\"sensor\":\"c\"}", sensors: "a b c"},
		{name: "no lines", contentType: "application/x-ndjson", body: ""},
		{name: "bad lines", contentType: "application/jsonl", body: "{\"sensor\":\"a\"}\n{\"sensor\n[]\n{\"sensor\":\"b\"}\n{} {}\n", sensors: "a b",
			rejected: []Rejection{{1, "", "ends too early"}, {2, "", "must be an object"}, {4, "", "has data after the closing brace"}}},
		{name: "large lines", contentType: "application/ndjson", sensors: "a b",
			body:     "{\"sensor\":\"a\"}\n{\"make\":\"" + large + "\"}\n{\"sensor\":\"b\"}\n{\"x\":\"" + strings.Repeat("x", 4500) + "\"}",
			rejected: []Rejection{{1, "", "is larger than 256 bytes"}, {3, "", "is larger than 256 bytes"}}},
		{name: "too many lines", contentType: "application/x-ndjson", body: strings.Repeat("{}\n", 11), err: ErrTooManyReads.Error()},
		{name: "too large a body of lines", contentType: "application/x-ndjson", body: strings.Repeat("\n", 5001), err: ErrBodyTooLarge.Error()},

		{name: "messages", contentType: "application/x-protobuf", body: message("a") + message("b"), sensors: "a b"},
		{name: "no messages", contentType: "application/protobuf", body: ""},
		{name: "bad messages", contentType: "application/x-protobuf", sensors: "a b",
			body: message("a") + "\x02\x18\x01" + "\x00" + "\x02{}" + "\x80\x03" + strings.Repeat("x", 384) + message("b"),
			rejected: []Rejection{{1, "plate", "has the wrong wire type (byte 0 of the read)"}, {2, "", "empty value"},
				{3, "", "is not a vigie.v1.Read message"}, {4, "", "is larger than 256 bytes"}}},
		{name: "message that ends too early", contentType: "application/x-protobuf", body: message("a") + "\x05ab", err: "byte 7 of the body: the message ends too early"},
		{name: "large message that ends too early", contentType: "application/x-protobuf", body: "\x80\x03ab", err: "byte 4 of the body: the message ends too early"},
		{name: "length that ends too early", contentType: "application/x-protobuf", body: message("a") + "\x80", err: "byte 5 of the body: is not the length of a message"},
		{name: "length of more than 64 bits", contentType: "application/x-protobuf", body: "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", err: "is not the length of a message"},
		{name: "length above the limit of the body", contentType: "application/x-protobuf", body: "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", err: ErrBodyTooLarge.Error()},
		{name: "too many messages", contentType: "application/x-protobuf", body: strings.Repeat(message("a"), 11), err: ErrTooManyReads.Error()},

		{name: "form", contentType: "application/x-www-form-urlencoded", err: ErrContentType.Error()},
		{name: "other charset", contentType: "application/json; charset=latin1", body: `[]`, err: ErrContentType.Error()},
		{name: "no media type", contentType: ";;", err: ErrContentType.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			limits := Limits{Reads: 10, ReadBytes: 256, BodyBytes: 5000}
			reads, rejected, err := ParseBatch(tt.contentType, strings.NewReader(tt.body), limits)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || reads != nil || rejected != nil {
					t.Errorf("got %d reads, %+v, error %v; want error %q alone", len(reads), rejected, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("got error %v", err)
			}
			var sensors []string
			for _, r := range reads {
				sensors = append(sensors, r.Sensor)
			}
			if got := strings.Join(sensors, " "); got != tt.sensors {
				t.Errorf("took %q, want %q", got, tt.sensors)
			}
			if !slices.EqualFunc(rejected, tt.rejected, func(a, b Rejection) bool {
				return a.Index == b.Index && a.Field == b.Field && strings.HasPrefix(a.Reason, b.Reason)
			}) {
				t.Errorf("rejected %+v, want %+v", rejected, tt.rejected)
			}
			again, rejectedAgain, err := ParseBatch(tt.contentType, iotest.OneByteReader(strings.NewReader(tt.body)), limits)
			if err != nil || !reflect.DeepEqual(again, reads) || !reflect.DeepEqual(rejectedAgain, rejected) {
				t.Errorf("byte by byte: %d reads, %+v, %v", len(again), rejectedAgain, err)
			}
		})
	}
}

// TestParseBatchPassesErrorsOfTheBody matters to the server, which answers 413 to
// an *http.MaxBytesError and nothing to a connection that is gone.
func TestParseBatchPassesErrorsOfTheBody(t *testing.T) {
	gone := errors.New("connection is gone")
	for contentType, bodies := range map[string][]string{
		"application/json":       {"", "[{},", "[{}]", "{}", `{"sen`},
		"application/x-ndjson":   {"", "{}\n", `{"sen`},
		"application/x-protobuf": {"", message("a"), message("a")[:2], "\x80"},
	} {
		for _, body := range bodies {
			in := io.MultiReader(strings.NewReader(body), iotest.ErrReader(gone))
			if reads, _, err := ParseBatch(contentType, in, Limits{}); !errors.Is(err, gone) || reads != nil {
				t.Errorf("%s, %q: %d reads, %v; want the error of the body", contentType, body, len(reads), err)
			}
		}
	}
}

// TestBodyLimitIsExact holds bodies to the byte.
func TestBodyLimitIsExact(t *testing.T) {
	for _, contentType := range []string{"application/json", "application/x-ndjson"} {
		body := `{"sensor":"a"}`
		for delta := range 2 {
			_, _, err := ParseBatch(contentType, strings.NewReader(body), Limits{BodyBytes: int64(len(body) - delta)})
			if want := delta > 0; errors.Is(err, ErrBodyTooLarge) != want {
				t.Errorf("%s, limit %d below: %v", contentType, delta, err)
			}
		}
	}
}

// TestMerge checks Merge against the obvious model: a list of all positions.
func TestMerge(t *testing.T) {
	const n = 7
	for parsedSet := range 1 << n {
		for acceptSet := 0; acceptSet < 1<<n; acceptSet += 5 {
			var parsed []Rejection
			var handed []int // positions of the reads that were handed to Accept
			for i := range n {
				if parsedSet>>i&1 == 1 {
					parsed = append(parsed, Rejection{Index: i, Reason: "parse"})
				} else {
					handed = append(handed, i)
				}
			}
			res := Result{Rejected: []Rejection{}}
			reason := make([]string, n)
			for _, rej := range parsed {
				reason[rej.Index] = rej.Reason
			}
			for j, position := range handed {
				if acceptSet>>j&1 == 1 {
					res.Rejected = append(res.Rejected, Rejection{Index: j, Reason: "accept"})
					reason[position] = "accept"
				} else {
					res.Accepted++
				}
			}
			want := Result{Accepted: res.Accepted, Rejected: []Rejection{}}
			for i, r := range reason {
				if r != "" {
					want.Rejected = append(want.Rejected, Rejection{Index: i, Reason: r})
				}
			}
			if got := res.Merge(parsed); !reflect.DeepEqual(got, want) {
				t.Fatalf("Merge of %v and %v = %v, want %v", parsed, res, got, want)
			}
		}
	}
}

func TestAcceptBody(t *testing.T) {
	g, p := newGateway(t)
	body := fmt.Sprintf("{\"sensor\":\"a\",\"plate\":\"AB123CD\",\"ts\":%d}\nx\n{\"sensor\":\"a\",\"ts\":5,\"conf\":7}\n{\"ts\":\"\"}\n{\"sensor\":\"b\",\"ts\":5}\n", noon.UnixMilli())
	res, err := g.AcceptBody(t.Context(), "application/x-ndjson", strings.NewReader(body), Limits{}, AcceptOptions{})
	want := Result{Accepted: 2, Rejected: []Rejection{
		{1, "", "must be an object"}, {2, "conf", "must be between 0 and 1 (0.95, not 95)"}, {3, "ts", "must be a whole number (byte 8 of the read)"},
	}}
	if err != nil || !reflect.DeepEqual(res, want) {
		t.Errorf("got %+v, %v; want %+v", res, err, want)
	}
	if s := g.Stats(); s.Accepted != 2 || s.Rejected["body"] != 1 || s.Rejected["conf"] != 1 || s.Rejected["ts"] != 1 || s.Sentinels != 1 {
		t.Errorf("Stats = %+v", s)
	}
	if _, err := g.AcceptBody(t.Context(), "text/plain", strings.NewReader(""), Limits{}, AcceptOptions{}); !errors.Is(err, ErrContentType) {
		t.Errorf("text/plain: %v", err)
	}
	p.err = errors.New("broker is away")
	res, err = g.AcceptBody(t.Context(), "application/x-ndjson", strings.NewReader(body), Limits{}, AcceptOptions{})
	if !errors.Is(err, p.err) || !reflect.DeepEqual(res, Result{}) {
		t.Errorf("failed publication: %+v, %v", res, err)
	}
	if s := g.Stats(); s.Rejected["body"] != 1 || s.PublishErrors != 1 {
		t.Errorf("after a failed publication Stats = %+v", s)
	}
}

// FuzzParseBatch holds ParseBatch to its bounds on any body, and to what it means:
// every position is taken or rejected once, the reads are those of Decode, they
// parse to themselves again in each form, and errors hold nothing of the body.
func FuzzParseBatch(f *testing.F) {
	f.Add(uint8(0), []byte(`[{"sensor":"a"},5,{"plate":"A1","plate":"B2"}]`))
	f.Add(uint8(0), []byte(`{"sensor":"a","plate":"AB123CD","ts":1773470467412}`))
	f.Add(uint8(1), []byte("{\"sensor\":\"a\"}\n\nx\r\n{\"sensor\":\"b\"}"))
	f.Add(uint8(2), []byte(message("a")+"\x00"+message("b")))
	f.Add(uint8(0), []byte("[[[[[[{}]]]]],{\"a\":\"\xff\"}]"))
	contentTypes := []string{"application/json", "application/x-ndjson", "application/x-protobuf"}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		contentType := contentTypes[int(kind)%len(contentTypes)]
		limits := Limits{Reads: 20, ReadBytes: 200, BodyBytes: 2000}
		reads, rejected, err := ParseBatch(contentType, bytes.NewReader(body), limits)
		if err != nil {
			if reads != nil || rejected != nil {
				t.Fatalf("reads beside the error %v", err)
			}
			fault, ok := errors.AsType[*BodyError](err)
			if !ok && err != ErrTooManyReads && err != ErrBodyTooLarge {
				t.Fatalf("unknown error %v", err)
			}
			if ok && (fault.Offset < 0 || fault.Offset > int64(len(body))) {
				t.Fatalf("offset %d in a body of %d", fault.Offset, len(body))
			}
			return
		}
		if len(body) > int(limits.BodyBytes) || len(reads)+len(rejected) > limits.Reads {
			t.Fatalf("%d bytes with %d reads and %d rejections passed the limits", len(body), len(reads), len(rejected))
		}
		for i, rej := range rejected {
			if rej.Index < 0 || rej.Index >= len(reads)+len(rejected) || i > 0 && rej.Index <= rejected[i-1].Index {
				t.Fatalf("indexes of %+v with %d reads", rejected, len(reads))
			}
		}
		if contentType == "application/x-ndjson" {
			lines := 0
			for line := range bytes.Lines(body) {
				if value := bytes.Trim(line, " \t\r\n"); len(value) > 0 {
					if lines == len(reads)+len(rejected) {
						t.Fatal("a line is missing")
					}
					taken := !slices.ContainsFunc(rejected, func(r Rejection) bool { return r.Index == lines })
					var r Read
					ok := value[0] == '{' && len(value) <= limits.ReadBytes && Decode(value, &r) == nil
					if ok != taken {
						t.Fatalf("line %d: Decode %v, ParseBatch %v", lines, ok, taken)
					}
					lines++
				}
			}
			if lines != len(reads)+len(rejected) {
				t.Fatalf("%d lines gave %d reads and %d rejections", lines, len(reads), len(rejected))
			}
		}
		var array, ndjson, messages []byte
		array = append(array, '[')
		for i := range reads {
			text := []byte(dump(t, &reads[i]))
			if i > 0 {
				array = append(array, ',')
			}
			array = append(array, text...)
			ndjson = append(append(ndjson, text...), '\n')
			wire, err := AppendProto(nil, &reads[i])
			if err != nil { // a read without content has no Protobuf form
				return
			}
			messages = append(binary.AppendUvarint(messages, uint64(len(wire))), wire...)
		}
		array = append(array, ']')
		for i, again := range [][]byte{array, ndjson, messages} {
			back, rejected, err := ParseBatch(contentTypes[i], bytes.NewReader(again), Limits{})
			if err != nil || len(rejected) != 0 || len(back) != len(reads) {
				t.Fatalf("%s: %d reads, %+v, %v; want %d", contentTypes[i], len(back), rejected, err, len(reads))
			}
			for j := range back {
				if !same(&back[j], &reads[j]) {
					t.Fatalf("%s: got %s, want %s", contentTypes[i], dump(t, &back[j]), dump(t, &reads[j]))
				}
			}
		}
	})
}
