package sensors

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"google.golang.org/protobuf/proto"

	"vigie/sensors/readpb"
)

// fullRead has every field set.
func fullRead() Read {
	return Read{
		ID: "01JZ8Q0V5T", Sensor: "A7-118-2", Plate: "AB-123-CD", Country: "FR", TS: 1773470467412, Conf: 0.95,
		Passage: "p-42", Candidates: []Candidate{{"AB123CO", 0.41}, {"A8123CD", 0.2}}, CharConf: []float32{0.9, 0.99, 0.5},
		Image: &Image{Partition: 3, Offset: 1 << 40}, Lane: 2, Direction: "Lyon → Marseille", Speed: 121.5,
		Make: "Citroën", Color: "grey", Received: 1773470467500, Retransmitted: true,
		Revision: 3, Lat: 48.85661, Lon: -2.352222, Context: &Image{Partition: 4, Offset: 77},
	}
}

// randomRead returns a read with a random choice of fields set to values that
// reach the ends of their types.
func randomRead(rng *rand.Rand) Read {
	texts := []string{"", "A", "AB-123-CD", "é→Ω", "a\"b\\c\n\u2028", "<script>", strings.Repeat("x", 70), "\U0001f697"}
	text := func() string { return texts[rng.IntN(len(texts))] }
	floats := []float32{0, 1, 0.95, 1e-45, math.MaxFloat32, -0.5, 1.0 / 3, float32(math.Copysign(0, -1)), rng.Float32()}
	float := func() float32 { return floats[rng.IntN(len(floats))] }
	ints := []int64{0, 1, -1, math.MaxInt64, math.MinInt64, 1773470467412}
	integer := func() int64 { return ints[rng.IntN(len(ints))] }
	r := Read{
		ID: text(), Sensor: "s" + text(), Plate: text(), Country: text(), TS: integer(), Conf: float(), Passage: text(),
		Lane: uint32(integer()), Direction: text(), Speed: float(), Make: text(), Color: text(), Received: integer(),
		Retransmitted: rng.IntN(2) == 0, Revision: uint32(integer()), Lat: float(), Lon: float(),
	}
	for range rng.IntN(4) {
		r.Candidates = append(r.Candidates, Candidate{text(), float()})
		r.CharConf = append(r.CharConf, float())
	}
	if rng.IntN(2) == 0 {
		r.Image = &Image{int32(integer()), integer()}
	}
	if rng.IntN(2) == 0 {
		r.Context = &Image{int32(integer()), integer()}
	}
	return r
}

// same compares reads, taking an empty slice for a nil one.
func same(a, b *Read) bool {
	x, y := *a, *b
	for _, r := range []*Read{&x, &y} {
		if len(r.Candidates) == 0 {
			r.Candidates = nil
		}
		if len(r.CharConf) == 0 {
			r.CharConf = nil
		}
	}
	return reflect.DeepEqual(x, y)
}

func dump(t testing.TB, r *Read) string {
	t.Helper()
	b, err := stdjson.Marshal(r)
	if err != nil {
		return "cannot be dumped: " + err.Error()
	}
	return string(b)
}

func TestJSONNames(t *testing.T) {
	const want = `{"id":"01JZ8Q0V5T","sensor":"A7-118-2","plate":"AB-123-CD","country":"FR","ts":1773470467412,` +
		`"conf":0.95,"passage":"p-42","candidates":[{"plate":"AB123CO","conf":0.41},{"plate":"A8123CD","conf":0.2}],` +
		`"char_conf":[0.9,0.99,0.5],"image":{"partition":3,"offset":1099511627776},"lane":2,` +
		`"direction":"Lyon → Marseille","speed":121.5,"make":"Citroën","color":"grey","received":1773470467500,` +
		`"retransmitted":true,"revision":3,"lat":48.85661,"lon":-2.352222,"context":{"partition":4,"offset":77}}`
	r := fullRead()
	for name, marshal := range map[string]func(any) ([]byte, error){
		"encoding/json": stdjson.Marshal,
		"json/v2":       func(v any) ([]byte, error) { return json.Marshal(v) },
	} {
		got, err := marshal(&r)
		if err != nil || string(got) != want {
			t.Errorf("%s of a full read:\n got %s, %v\nwant %s", name, got, err, want)
		}
		got, err = marshal(Read{Candidates: []Candidate{}})
		if want := `{"sensor":"","plate":"","ts":0}`; err != nil || string(got) != want {
			t.Errorf("%s of an empty read: got %s, %v; want %s", name, got, err, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	reused := fullRead() // DecodeView must not let anything of an earlier read through
	for range 2000 {
		in := randomRead(rng)
		wire, err := AppendProto(nil, &in)
		if err != nil {
			t.Fatalf("AppendProto(%s): %v", dump(t, &in), err)
		}
		text, err := stdjson.Marshal(&in)
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range [][]byte{wire, text} {
			var out Read
			if err := Decode(value, &out); err != nil || !same(&in, &out) {
				t.Fatalf("Decode of %q: %v\n got %s\nwant %s", value, err, dump(t, &out), dump(t, &in))
			}
			if err := DecodeView(value, &reused); err != nil || !same(&in, &reused) {
				t.Fatalf("DecodeView of %q: %v\n got %s\nwant %s", value, err, dump(t, &reused), dump(t, &in))
			}
		}
	}
}

// TestAppendProtoIsProtobuf holds AppendProto to the bytes of the official encoder.
func TestAppendProtoIsProtobuf(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		in := randomRead(rng)
		got, err := AppendProto([]byte("before"), &in)
		if err != nil {
			t.Fatal(err)
		}
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(toPB(&in))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != "before"+string(want) {
			t.Fatalf("AppendProto(%s)\n got %x\nwant %x", dump(t, &in), got[len("before"):], want)
		}
	}
}

func toPB(r *Read) *readpb.Read {
	m := &readpb.Read{
		Id: r.ID, Sensor: r.Sensor, Plate: r.Plate, Country: r.Country, Ts: r.TS, Conf: r.Conf, Passage: r.Passage,
		CharConf: r.CharConf, Lane: r.Lane, Direction: r.Direction, Speed: r.Speed, Make: r.Make, Color: r.Color,
		Received: r.Received, Retransmitted: r.Retransmitted,
		Revision: r.Revision, Lat: r.Lat, Lon: r.Lon,
	}
	for _, c := range r.Candidates {
		m.Candidates = append(m.Candidates, &readpb.Candidate{Plate: c.Plate, Conf: c.Conf})
	}
	if r.Image != nil {
		m.Image = &readpb.Image{Partition: r.Image.Partition, Offset: r.Image.Offset}
	}
	if r.Context != nil {
		m.Context = &readpb.Image{Partition: r.Context.Partition, Offset: r.Context.Offset}
	}
	return m
}

func fromPB(m *readpb.Read) Read {
	r := Read{
		ID: m.GetId(), Sensor: m.GetSensor(), Plate: m.GetPlate(), Country: m.GetCountry(), TS: m.GetTs(), Conf: m.GetConf(),
		Passage: m.GetPassage(), CharConf: m.GetCharConf(), Lane: m.GetLane(), Direction: m.GetDirection(),
		Speed: m.GetSpeed(), Make: m.GetMake(), Color: m.GetColor(), Received: m.GetReceived(), Retransmitted: m.GetRetransmitted(),
		Revision: m.GetRevision(), Lat: m.GetLat(), Lon: m.GetLon(),
	}
	for _, c := range m.GetCandidates() {
		r.Candidates = append(r.Candidates, Candidate{c.GetPlate(), c.GetConf()})
	}
	if m.GetImage() != nil {
		r.Image = &Image{m.GetImage().GetPartition(), m.GetImage().GetOffset()}
	}
	if m.GetContext() != nil {
		r.Context = &Image{m.GetContext().GetPartition(), m.GetContext().GetOffset()}
	}
	return r
}

func TestAppendProtoRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		read Read
		want string
	}{
		{"nothing", Read{}, "empty value"},
		{"bad UTF-8", Read{Plate: "AB123\xff"}, "sensors: encode read: plate is not valid UTF-8"},
		{"bad UTF-8 in a candidate", Read{Candidates: []Candidate{{Plate: "\xff"}}}, "candidates is not valid UTF-8"},
		{"NaN", Read{Conf: float32(math.NaN())}, "conf must be a finite number"},
		{"infinite speed", Read{Speed: float32(math.Inf(1))}, "speed must be a finite number"},
		{"NaN per character", Read{CharConf: []float32{float32(math.NaN())}}, "char_conf must be a finite number"},
		{"candidates without end", Read{Candidates: make([]Candidate, 257)}, "candidates has too many elements"},
		{"too large", Read{Make: strings.Repeat("x", MaxReadBytes)}, "larger than 65536 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := AppendProto([]byte("before"), &tt.read)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
			if string(got) != "before" {
				t.Errorf("dst came back as %q", got)
			}
		})
	}
}

// decodings are values and what becomes of them: the read, or the error.
var decodings = []struct {
	name  string
	value string
	want  Read
	err   string
}{
	{name: "design", value: `{"id":"01J","sensor":"A7-118-2","plate":"AB123CD","country":"FR","ts":1773470467412,"conf":0.95}`,
		want: Read{ID: "01J", Sensor: "A7-118-2", Plate: "AB123CD", Country: "FR", TS: 1773470467412, Conf: 0.95}},
	{name: "empty object", value: `{}`},
	{name: "white space", value: "{ \"sensor\" :\t\"s\" ,\r\n\"ts\" : 1 } \n", want: Read{Sensor: "s", TS: 1}},
	{name: "escapes", value: `{"sensor":"s","pl\u0061te":"A\u00e9\ud83d\ude97"}`, want: Read{Sensor: "s", Plate: "Aé🚗"}},
	{name: "null is not told", value: `{"sensor":"s","country":null,"conf":null,"lane":null,"image":null,"candidates":null,"retransmitted":null}`,
		want: Read{Sensor: "s"}},
	{name: "unknown members", value: `{"sensor":"s","model":{"a":[1,{"plate":1}],"b":null},"x":"\ufffd","ts":7}`,
		want: Read{Sensor: "s", TS: 7}},
	{name: "unknown member of a candidate", value: `{"candidates":[{"plate":"X1","conf":0.5,"region":"fr"}]}`,
		want: Read{Candidates: []Candidate{{"X1", 0.5}}}},
	{name: "number with exponent", value: `{"conf":9.5e-1,"ts":1}`, want: Read{Conf: 0.95, TS: 1}},
	{name: "long number", value: `{"conf":0.123456789012345678901234567890}`, want: Read{Conf: 0.12345679}},
	{name: "protobuf", value: "\x12\x01s\x1a\x02X1\x28\x07", want: Read{Sensor: "s", Plate: "X1", TS: 7}},
	{name: "protobuf, unknown fields", value: "\x12\x01s\xa0\x06\x01\xaa\x06\x03abc\xb3\x06\x08\x01\xb4\x06", want: Read{Sensor: "s"}},
	{name: "protobuf, last value counts", value: "\x12\x01a\x12\x01b", want: Read{Sensor: "b"}},
	{name: "protobuf, char_conf not packed", value: "\x4d\x00\x00\x80\x3f\x4d\x00\x00\x00\x3f", want: Read{CharConf: []float32{1, 0.5}}},
	{name: "protobuf, images merge", value: "\x52\x02\x08\x03\x52\x02\x10\x05", want: Read{Image: &Image{3, 5}}},

	{name: "nothing", value: "", err: "sensors: empty value"},
	{name: "too large", value: `{"x":"` + strings.Repeat("x", MaxReadBytes) + `"}`, err: "sensors: larger than 65536 bytes"},
	{name: "duplicate", value: `{"plate":"AB123CD","plate":"XY987ZT"}`, err: "json: plate: name is given twice (byte 19)"},
	{name: "duplicate in escapes", value: `{"plate":"AB123CD","pl\u0061te":"XY987ZT"}`, err: "json: plate: name is given twice (byte 19)"},
	{name: "duplicate unknown", value: `{"AB123CD":1,"AB123CD":2}`, err: "json: name is given twice (byte 13)"},
	{name: "duplicate in a candidate", value: `{"candidates":[{"conf":1,"conf":0}]}`, err: "json: candidates[0].conf: name is given twice"},
	{name: "case variant", value: `{"plate":"AB123CD","PLATE":"XY987ZT"}`, err: "json: plate: name must be written as documented"},
	{name: "case variant alone", value: `{"Sensor":"s"}`, err: "json: sensor: name must be written as documented"},
	{name: "case variant by Unicode folding", value: `{"\u017fensor":"s"}`, err: "json: sensor: name must be written as documented"},
	{name: "camel case", value: `{"charConf":[1]}`, err: "json: char_conf: name must be written as documented"},
	{name: "case variant in a candidate", value: `{"candidates":[{},{"Plate":"AB123CD"}]}`, err: "json: candidates[1].plate: name must be written"},
	{name: "case variant in the image", value: `{"image":{"OFFSET":1}}`, err: "json: image.offset: name must be written"},
	{name: "trailing data", value: `{"plate":"AB123CD"}{"plate":"XY987ZT"}`, err: "json: has data after the closing brace (byte 20)"},
	{name: "trailing comma", value: `{"plate":"AB123CD",}`, err: "json: is not valid JSON"},
	{name: "cut off", value: `{"plate":"AB12`, err: "json: plate: ends too early"},
	{name: "no closing brace", value: `{"ts":1`, err: "json: ends too early"},
	{name: "invalid UTF-8", value: "{\"plate\":\"AB\xff123CD\"}", err: "json: plate: is not valid UTF-8"},
	{name: "invalid UTF-8 in an unknown name", value: "{\"\xff\":1}", err: "json: is not valid UTF-8"},
	{name: "lone surrogate", value: `{"plate":"\ud800"}`, err: "json: plate: is not valid JSON"},
	{name: "control character", value: "{\"plate\":\"A\nB\"}", err: "json: plate: is not valid JSON"},
	{name: "number for a string", value: `{"plate":123}`, err: "json: plate: must be a string (byte 12)"},
	{name: "string for a number", value: `{"conf":"0.9"}`, err: "json: conf: must be a number"},
	{name: "string for an integer", value: `{"ts":"1773470467412"}`, err: "json: ts: must be a whole number"},
	{name: "fraction for an integer", value: `{"ts":1773470467412.0}`, err: "json: ts: must be a whole number"},
	{name: "integer too large", value: `{"ts":9223372036854775808}`, err: "json: ts: is out of range"},
	{name: "lane too large", value: `{"lane":4294967296}`, err: "json: lane: is out of range"},
	{name: "negative lane", value: `{"lane":-1}`, err: "json: lane: is out of range"},
	{name: "partition too large", value: `{"image":{"partition":2147483648}}`, err: "json: image.partition: is out of range"},
	{name: "float too large", value: `{"speed":1e39}`, err: "json: speed: is out of range"},
	{name: "NaN", value: `{"conf":NaN}`, err: "json: conf: is not valid JSON"},
	{name: "NaN in a string", value: `{"conf":"NaN"}`, err: "json: conf: must be a number"},
	{name: "leading zero", value: `{"ts":01}`, err: "json: is not valid JSON"},
	{name: "number for true", value: `{"retransmitted":1}`, err: "json: retransmitted: must be true or false"},
	{name: "object for an array", value: `{"candidates":{}}`, err: "json: candidates: must be an array"},
	{name: "string for a candidate", value: `{"candidates":["AB123CD"]}`, err: "json: candidates[0]: must be an object"},
	{name: "array for the image", value: `{"image":[]}`, err: "json: image: must be an object"},
	{name: "deep", value: `{"x":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`, err: "json: is nested too deeply"},
	{name: "deepest", value: `{"x":` + strings.Repeat("[", 30000), err: "json: is nested too deeply"},
	{name: "candidates without end", value: `{"candidates":[` + strings.Repeat("{},", 300) + `{}]}`, err: "json: candidates: has too many elements"},
	{name: "char_conf without end", value: `{"char_conf":[` + strings.Repeat("1,", 300) + `1]}`, err: "json: char_conf: has too many elements"},
	{name: "white space in front", value: ` {"sensor":"s"}`, err: "protobuf: "},
	{name: "array", value: `[{"sensor":"s"}]`, err: "protobuf: "},
	{name: "text", value: "AB-123-CD", err: "protobuf: "},
	{name: "protobuf, cut off", value: "\x12\x05A7", err: "protobuf: sensor: ends too early (byte 0)"},
	{name: "protobuf, invalid UTF-8", value: "\x12\x01s\x1a\x02A\xff", err: "protobuf: plate: is not valid UTF-8 (byte 3)"},
	{name: "protobuf, wire type", value: "\x18\x01", err: "protobuf: plate: has the wrong wire type"},
	{name: "protobuf, wire type of a candidate", value: "\x42\x02\x08\x01", err: "protobuf: candidates[0].plate: has the wrong wire type"},
	{name: "protobuf, wire type of the image", value: "\x52\x02\x0a\x00", err: "protobuf: image.partition: has the wrong wire type"},
	{name: "protobuf, NaN", value: "\x35\x00\x00\xc0\x7f", err: "protobuf: conf: must be a finite number"},
	{name: "protobuf, infinite", value: "\x6d\x00\x00\x80\xff", err: "protobuf: speed: must be a finite number"},
	{name: "protobuf, NaN per character", value: "\x4a\x08\x00\x00\x80\x3f\x00\x00\xc0\x7f", err: "protobuf: char_conf[1]: must be a finite number"},
	{name: "protobuf, lane too large", value: "\x58\x80\x80\x80\x80\x10", err: "protobuf: lane: is out of range"},
	{name: "protobuf, field number 0", value: "\x02\x01s", err: "protobuf: is not a vigie.v1.Read message"},
	{name: "protobuf, open group", value: "\xb3\x06\x08\x01", err: "protobuf: ends too early"},
	{name: "protobuf, stray end of group", value: "\xb4\x06", err: "protobuf: is not a vigie.v1.Read message"},
	{name: "protobuf, candidates without end", value: strings.Repeat("\x42\x00", 257), err: "protobuf: candidates: has too many elements"},
}

func TestDecode(t *testing.T) {
	for _, tt := range decodings {
		t.Run(tt.name, func(t *testing.T) {
			got := fullRead()
			err := Decode([]byte(tt.value), &got)
			if !same(&got, &tt.want) {
				t.Errorf("got %s, want %s", dump(t, &got), dump(t, &tt.want))
			}
			if tt.err == "" {
				if err != nil {
					t.Errorf("got error %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			if _, ok := errors.AsType[*DecodeError](err); !ok {
				t.Errorf("error is a %T", err)
			}
		})
	}
	if err := Decode(nil, new(Read)); !errors.Is(err, ErrEmpty) {
		t.Errorf("Decode(nil) = %v, want ErrEmpty", err)
	}
	if err := Decode(make([]byte, MaxReadBytes+1), new(Read)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("Decode of too much = %v, want ErrTooLarge", err)
	}
}

// closedSet describes every error text of Decode: words of this package and numbers.
var closedSet = func() *regexp.Regexp {
	var reasons []string
	for _, s := range []string{reasonTruncated, reasonSyntax, reasonTrailing, reasonUTF8, reasonDepth, reasonDuplicate,
		reasonVariant, reasonString, reasonNumber, reasonInteger, reasonBool, reasonArray, reasonObject, reasonElements,
		reasonRange, reasonNotFinite, reasonTag, reasonWireType} {
		reasons = append(reasons, regexp.QuoteMeta(s))
	}
	names := strings.Join(readNames, "|")
	return regexp.MustCompile(`^sensors: (empty value|larger than 65536 bytes|(json|protobuf): ` +
		`((` + names + `)(\[\d+\])?(\.(plate|conf))?: |(image\.)?(partition|offset): )?(` + strings.Join(reasons, "|") + `) \(byte \d+\))$`)
}()

// FuzzDecode holds Decode to its properties on any bytes: what it accepts survives
// both encoders, the official decoders read the same, and what it refuses leaves
// nothing of the value in the error.
func FuzzDecode(f *testing.F) {
	for _, tt := range decodings {
		if len(tt.value) < 4096 {
			f.Add([]byte(tt.value))
		}
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		r := randomRead(rng)
		wire, _ := AppendProto(nil, &r)
		f.Add(wire)
		text, _ := stdjson.Marshal(&r)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		before := string(value)
		var r Read
		err := Decode(value, &r)
		view := fullRead()
		errView := DecodeView(value, &view)
		if !same(&r, &view) || !reflect.DeepEqual(err, errView) {
			t.Fatalf("Decode and DecodeView differ: %s, %v; %s, %v", dump(t, &r), err, dump(t, &view), errView)
		}
		if string(value) != before {
			t.Fatal("the value was changed")
		}
		checkAgainstStrict(t, value, &r, err)
		checkAgainstOfficial(t, value, &r, err)
		if err != nil {
			if !closedSet.MatchString(err.Error()) {
				t.Fatalf("error is not of the closed set: %v", err)
			}
			if !same(&r, &Read{}) {
				t.Fatalf("a refused value left %s", dump(t, &r))
			}
			return
		}
		text, err := stdjson.Marshal(&r)
		if err != nil {
			t.Fatalf("Marshal of a decoded read: %v", err)
		}
		wire, err := AppendProto(nil, &r)
		if err != nil && !errors.Is(err, ErrEmpty) {
			t.Fatalf("AppendProto of a decoded read: %v", err)
		}
		for _, again := range [][]byte{text, wire} {
			var back Read
			if len(again) == 0 || len(again) > MaxReadBytes { // escapes can make JSON longer
				continue
			}
			if err := Decode(again, &back); err != nil || !same(&r, &back) {
				t.Fatalf("Decode(%q) = %s, %v; want %s", again, dump(t, &back), err, dump(t, &r))
			}
		}
		c := r.Clone()
		if !same(&c, &r) {
			t.Fatalf("Clone() = %s, want %s", dump(t, &c), dump(t, &r))
		}
		_, _, _ = r.Check(), r.CountryCode(), r.String()
		if len(StableID(&r)) != 26 {
			t.Fatal("StableID is not 26 characters long")
		}
	})
}

// TestPlainJSON holds the quick JSON reader to the strict one where it goes its
// shortest way: at reads as sensors send them, with a byte or two changed, put in or left
// out. The fuzzer seldom stays so near to them.
func TestPlainJSON(t *testing.T) {
	check := func(value string) {
		t.Helper()
		var r Read
		checkAgainstStrict(t, []byte(value), &r, Decode([]byte(value), &r))
	}
	for _, v := range []string{
		`{"id\x00":"a","sensor":"s","plate":"AB","ts":1773470467412}`,
		"{\"id\x00\":\"a\"}", "{\"id\x00\x00\x00\x00\x00\x00\":\"a\"}", "{\"ts\x00\x00\x00\x00\x00\x00\":12345678}",
		`{"ts":00000000}`, `{"ts":12345678`, `{"ts":123456789012345678}`, `{"ts":1234567890123456789}`, `{"ts":12345678e1}`, `{"ts":12345678.5}`,
		`{"conf":0.1234567}`, `{"conf":0.123456}`, `{"conf":0.}`, `{"conf":0.1e1}`, `{"conf":0.12}       `, `{"conf":0.12`, `{"conf":0.1234567890123}`,
		`{"id":"aaaaaaaaaaaaaaaaaaaaaaaa`, `{"id":"a","id":"bbbbbbbbbbbbbbb"}`, `{"id":"é","sensor":"sssssssss"}`, `{"id":"a\u0041","sensor":"sssssssss"}`,
		`{"country":"FR"}`, `{"country":"FR"        }`, `{"country":"FR" , "plate" : "AB-123-CD"}`, `{"plate":"AB-123-CD"}x`, `{"plate":"AB-123-CD",}`,
	} {
		check(v)
	}
	rng := rand.New(rand.NewPCG(2, 2))
	bytes := []byte(`"",:{}\09.eE- 	Aaz` + "\x00\x1f\x7f\x80\xff\xc3")
	for range 200_000 {
		r := Read{ID: fmt.Sprintf("01J%d", rng.Int64()), Sensor: "A7-118-2", Plate: "AB-123-CD", Country: "FR", TS: 1773470467412 >> rng.IntN(30),
			Conf: float32(rng.IntN(1000)) / 1000}
		v := must(stdjson.Marshal(&r))
		for range 1 + rng.IntN(2) {
			at, c := rng.IntN(len(v)), bytes[rng.IntN(len(bytes))]
			switch rng.IntN(3) {
			case 0:
				v[at] = c
			case 1:
				v = slices.Insert(v, at, c)
			default:
				v = slices.Delete(v, at, at+1)
			}
		}
		check(string(v))
	}
}

// checkAgainstStrict holds the quick JSON reader to the strict one.
func checkAgainstStrict(t *testing.T, value []byte, r *Read, err error) {
	t.Helper()
	if len(value) == 0 || len(value) > MaxReadBytes || value[0] != '{' {
		return
	}
	var strict Read
	if errStrict := new(decoder).strictJSON(value, &strict); (err == nil) != (errStrict == nil) {
		t.Fatalf("Decode: %v, strict reader: %v", err, errStrict)
	}
	if err == nil && !same(r, &strict) {
		t.Fatalf("Decode %s, strict reader %s", dump(t, r), dump(t, &strict))
	}
}

// checkAgainstOfficial holds what Decode accepts to the official decoders, and
// what it refuses to the points in which it is documented to be stricter.
func checkAgainstOfficial(t *testing.T, value []byte, r *Read, err error) {
	t.Helper()
	if len(value) == 0 || len(value) > MaxReadBytes {
		return
	}
	var want Read
	var official error
	if value[0] == '{' {
		official = json.Unmarshal(value, &want)
	} else {
		var m readpb.Read
		official = proto.Unmarshal(value, &m)
		want = fromPB(&m)
	}
	fault, _ := errors.AsType[*DecodeError](err)
	switch {
	case fault == nil && official != nil:
		t.Fatalf("accepted what the official decoder refuses: %v", official)
	case fault == nil && !same(r, &want):
		t.Fatalf("got %s, official decoder %s", dump(t, r), dump(t, &want))
	case fault != nil && official == nil:
		switch fault.Reason {
		case reasonVariant, reasonDepth, reasonElements, reasonWireType, reasonRange, reasonNotFinite:
		case reasonTruncated:
			// char_conf of a length that is no multiple of four: the official decoder
			// has an error too, but for some it is an unknown field.
			t.Fatalf("refused as cut off what the official decoder takes")
		default:
			t.Fatalf("refused what the official decoder takes: %v", err)
		}
	}
}

// TestPlainJSONIsUsed makes sure that the JSON form of design.md, and the full
// form as Go writes it, take the quick way: the fuzz test would not notice.
func TestPlainJSONIsUsed(t *testing.T) {
	full := fullRead()
	for _, value := range []string{decodings[0].value, dump(t, &full), `{"sensor":"s","plate":"é","conf":null,"x":1}`} {
		var r Read
		if got, want := new(decoder).plainJSON(value, &r), !strings.Contains(value, `"x"`); got != want {
			t.Errorf("plainJSON(%s) = %v, want %v", value, got, want)
		}
	}
}

func TestDecodeAllocations(t *testing.T) {
	in := fullRead()
	wire, err := AppendProto(nil, &in)
	if err != nil {
		t.Fatal(err)
	}
	var r Read
	for name, value := range map[string][]byte{"protobuf": wire, "json": []byte(dump(t, &in))} {
		if n := testing.AllocsPerRun(100, func() {
			if err := DecodeView(value, &r); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("DecodeView of %s: %v allocations, want 0", name, n)
		}
	}
	buf := make([]byte, 0, MaxReadBytes)
	if n := testing.AllocsPerRun(100, func() { buf, _ = AppendProto(buf[:0], &in) }); n != 0 {
		t.Errorf("AppendProto: %v allocations, want 0", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := in.Check(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Check: %v allocations, want 0", n)
	}
}

// TestCloneOutlivesTheBuffer overwrites the value behind a view.
func TestCloneOutlivesTheBuffer(t *testing.T) {
	in := fullRead()
	for _, encode := range []func() []byte{
		func() []byte { b, _ := AppendProto(nil, &in); return b },
		func() []byte { return []byte(dump(t, &in)) },
	} {
		value := encode()
		var view Read
		if err := DecodeView(value, &view); err != nil {
			t.Fatal(err)
		}
		kept := view.Clone()
		clear(value)
		if err := DecodeView([]byte(`{"candidates":[{},{}],"char_conf":[0,0,0],"image":{}}`), &view); err != nil {
			t.Fatal(err)
		}
		if !same(&kept, &in) {
			t.Errorf("clone changed to %s", dump(t, &kept))
		}
	}
}

// BenchmarkDecode is the price of a record of the reads topic, by form and size:
// form=json-extra has one member that Decode does not know and thus takes the
// strict reader. DecodeView must not allocate except there.
func BenchmarkDecode(b *testing.B) {
	small := Read{ID: "01JZ8Q0V5T3K9W4X7M2N6P8R1S", Sensor: "A7-118-2", Plate: "AB123CD", Country: "FR", TS: 1773470467412, Conf: 0.95, Received: 1773470467500}
	full := fullRead()
	for _, bm := range []struct {
		name  string
		value []byte
	}{
		{"form=proto/read=small", must(AppendProto(nil, &small))},
		{"form=proto/read=full", must(AppendProto(nil, &full))},
		{"form=json/read=small", must(stdjson.Marshal(&small))},
		{"form=json/read=full", must(stdjson.Marshal(&full))},
		{"form=json-extra/read=small", []byte(strings.Replace(string(must(stdjson.Marshal(&small))), "{", `{"x":1,`, 1))},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			var r Read
			for b.Loop() {
				if err := DecodeView(bm.value, &r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bm.name+"/keep", func(b *testing.B) {
			b.ReportAllocs()
			var r Read
			for b.Loop() {
				if err := Decode(bm.value, &r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// BenchmarkTake is what a matcher pays for a read before it can look the plate up:
// DecodeView, Check, Key and CountryCode, of records that differ.
func BenchmarkTake(b *testing.B) {
	for _, form := range []string{"proto", "json"} {
		var values [][]byte
		for i := range 1024 {
			r := Read{ID: fmt.Sprintf("01JZ8Q0V5T3K9W4X7M2N6P%04d", i), Sensor: fmt.Sprintf("A7-118-%d", i%40),
				Plate: fmt.Sprintf("A%c-%03d-C%c", 'A'+i%26, i%1000, 'A'+i/40), Country: "FR", TS: 1773470467412 + int64(7*i), Conf: float32(900+i%100) / 1000}
			if form == "proto" {
				values = append(values, must(AppendProto(nil, &r)))
			} else {
				values = append(values, must(stdjson.Marshal(&r)))
			}
		}
		b.Run("form="+form, func(b *testing.B) {
			b.ReportAllocs()
			var r Read
			for i := 0; b.Loop(); i++ {
				if err := DecodeView(values[i%len(values)], &r); err != nil {
					b.Fatal(err)
				}
				if err := r.Check(); err != nil {
					b.Fatal(err)
				}
				if _, err := r.Key(); err != nil {
					b.Fatal(err)
				}
				if r.CountryCode() == 0 {
					b.Fatal("no country")
				}
			}
		})
	}
}
