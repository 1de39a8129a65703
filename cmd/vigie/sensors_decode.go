package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"vigie/sensors"
	"vigie/sensors/format"
	"vigie/sensors/ingest"
	"vigie/sensors/passage"
	"vigie/watchlist/plate"
)

// noSensor stands for the sensor of messages that name none.
const noSensor = "camera"

// maxMessageFile is the size of a file to be decoded; a gateway takes less.
const maxMessageFile = 64 << 20

func newSensorsDecode() *cobra.Command {
	var name, contentType, topic, sensor, clock, zone, scale, country, output string
	cmd := &cobra.Command{
		Use:   "decode FILE...",
		Short: "Show the reads that messages of a sensor become",
		Long: `Show the reads that a gateway would publish for messages of a sensor, without a
gateway and without Kafka. Each file is one message, or several of them one after the
other: JSON lines, XML documents, or the parts of a stream. "-" reads standard input.

With -o json it prints one read per line as the gateway would publish it, but for the
time of arrival and the places of pictures. A read that tells nothing new of its
passage is left out, as the gateway would do; standard error says so.

The exit code is 2 when a message could not be decoded or a read was rejected;
standard error then names file, position, field and reason.`,
		Example: `  vigie sensors decode anpr.xml -o json
  vigie sensors decode --format dahua --clock local --zone Europe/Paris events.txt`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := sensors.Profile{Format: name, Clock: sensors.Clock(clock), Scale: sensors.Scale(scale), Country: country}
			switch {
			case name != "auto" && !slices.Contains(format.Names(), name):
				return fmt.Errorf("--format: %w", format.ErrFormat)
			case !slices.Contains([]sensors.Clock{"", sensors.ClockUTC, sensors.ClockLocal, sensors.ClockGateway}, p.Clock):
				return errors.New("--clock: must be utc, local or gateway")
			case !slices.Contains([]sensors.Scale{"", sensors.ScaleUnit, sensors.ScalePercent}, p.Scale):
				return errors.New("--scale: must be unit or percent")
			case p.Clock == sensors.ClockLocal && zone == "":
				return errors.New("--zone: is required with --clock local, such as Europe/Paris")
			}
			if _, ok := plate.ParseCountry(country); !ok {
				return errors.New("--country: must be a code such as FR, FRA or F")
			}
			if zone != "" {
				var err error
				if p.Zone, err = time.LoadLocation(zone); err != nil {
					return errors.New("--zone: must be the name of a time zone such as Europe/Paris")
				}
			}
			m := ingest.Message{Format: name, ContentType: contentType, Topic: topic, Source: sensor}
			refusals := 0
			var reads []sensors.Read
			for _, file := range args {
				body, err := readMessage(cmd, file)
				if err != nil {
					return err
				}
				m.Body = body
				got, refused, err := decodeMessage(cmd.Context(), cmd.ErrOrStderr(), file, m, p)
				if err != nil {
					return err
				}
				if named := cmd.Flags().Changed("sensor"); !named && slices.ContainsFunc(got, func(r sensors.Read) bool { return r.Sensor == noSensor }) {
					fmt.Fprintf(cmd.ErrOrStderr(), "%s: names no sensor and is shown as of %s; a gateway knows it by its token or certificate, or by ?sensor=\n", file, noSensor)
				}
				reads = append(reads, got...)
				refusals += refused
			}
			if err := writeReads(cmd.OutOrStdout(), output, reads); err != nil {
				return err
			}
			if refusals > 0 {
				return &exitError{code: 2}
			}
			return nil
		},
	}
	outputFlag(cmd, &output)
	f := cmd.Flags()
	f.StringVar(&name, "format", "auto", "format of the messages: auto, "+strings.Join(format.Names(), ", ")+"; `name`")
	f.StringVar(&contentType, "content-type", "", "content type that the sensor sends; found out when empty; `type`")
	f.StringVar(&topic, "topic", "", "MQTT topic that the messages came on; `topic`")
	f.StringVar(&sensor, "sensor", noSensor, "sensor of messages that name none; `id`")
	f.StringVar(&clock, "clock", "", "what the sensor writes as time: utc, local or gateway; that of the format when empty")
	f.StringVar(&zone, "zone", "", "time zone of local times and of times without an offset; `name`, UTC when empty")
	f.StringVar(&scale, "scale", "", "unit of confidences: unit (0 to 1) or percent; that of the format when empty")
	f.StringVar(&country, "country", "", "country of plates of which the messages tell none; `code`")
	return cmd
}

// readMessage reads a file, or standard input.
func readMessage(cmd *cobra.Command, file string) ([]byte, error) {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxMessageFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", file, err)
	case len(b) > maxMessageFile:
		return nil, refused(fmt.Errorf("%s: is larger than 64 MiB: split it", file))
	}
	return b, nil
}

// decodeMessage has a gateway without Kafka take a message in, and returns the reads that it
// would have published. What it refused goes to w, and is counted.
func decodeMessage(ctx context.Context, w io.Writer, file string, m ingest.Message, p sensors.Profile) (reads []sensors.Read, refusals int, err error) {
	published := new(collector)
	gateway, err := sensors.New(sensors.Config{Publisher: published, MaxBatch: 1 << 20})
	if err != nil {
		return nil, 0, err
	}
	passages, err := passage.New(passage.Config{})
	if err != nil {
		return nil, 0, err
	}
	var undecodable error
	in, err := ingest.New(ingest.Config{Gateway: gateway, Passages: passages, Decode: func(name string, in format.Input) (sensors.Message, error) {
		in.Profile = p
		msg, err := format.Decode(name, in)
		undecodable = err
		return msg, err
	}})
	if err != nil {
		return nil, 0, err
	}
	defer in.Close()
	res, err := in.Ingest(ctx, m)
	if undecodable != nil {
		fmt.Fprintf(w, "%s: %v\n", file, undecodable)
		return nil, 1, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", file, err)
	}
	for _, rej := range res.Rejected {
		fmt.Fprintf(w, "%s:%d: %s\n", file, rej.Index, strings.TrimSpace(rej.Field+" "+rej.Reason))
	}
	if res.Suppressed > 0 {
		fmt.Fprintf(w, "%s: %d of %d reads would not be published: they tell nothing new of their passage\n",
			file, res.Suppressed, res.Suppressed+res.Accepted+len(res.Rejected))
	}
	if res.Heartbeat {
		fmt.Fprintf(w, "%s: tells that the sensor is alive\n", file)
	}
	return published.reads, len(res.Rejected), nil
}

// collector keeps the reads that it is given.
type collector struct{ reads []sensors.Read }

func (c *collector) Publish(_ context.Context, reads []sensors.Read) error {
	for i := range reads {
		r := reads[i].Clone()
		r.Received = 0
		c.reads = append(c.reads, r)
	}
	return nil
}

func writeReads(w io.Writer, output string, reads []sensors.Read) error {
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		for i := range reads {
			if err := enc.Encode(&reads[i]); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if len(reads) > 0 {
		row(t, "TIME", "SENSOR", "PLATE", "COUNTRY", "CONF", "LANE", "PASSAGE", "REVISION")
	}
	for i := range reads {
		r := &reads[i]
		conf, lane := "", ""
		if r.Conf > 0 {
			conf = fmt.Sprintf("%.2f", r.Conf)
		}
		if r.Lane > 0 {
			lane = fmt.Sprint(r.Lane)
		}
		row(t, time.UnixMilli(r.TS).UTC().Format("2006-01-02 15:04:05.000Z"), r.Sensor, r.Plate, r.Country, conf, lane, r.Passage, r.Revision)
	}
	return t.Flush()
}
