package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // sensors name time zones, and not every machine has the database

	"github.com/spf13/cobra"

	"vigie/cmd/vigie/internal/httpapi"
	"vigie/sensors"
	"vigie/stream"
	"vigie/watchlist/control"
)

func newSensorsCmd() *cobra.Command {
	c := new(client)
	cmd := &cobra.Command{
		Use:   "sensors",
		Short: "Keep the registry of sensors, and see how they do",
		Long: `Keep the registry of sensors, and see how they do. The commands speak to a server
with an operator's token in VIGIE_TOKEN or in a file named by --token-file.

The registry says where a sensor stands, how its messages are read, and which lists
it may be used for. What becomes of reads of sensors that it does not have is a
setting of the gateways, gateway.unknown_sensors: accept, quarantine or refuse.`,
		Example: `  vigie sensors add A7-118-2 --name "A7 PK 118" --lat 45.1 --lon 4.8 --zone 26 --format hikvision --clock local --time-zone Europe/Paris
  vigie sensors import capteurs.csv --dry-run
  vigie sensors health`,
		Args: cobra.NoArgs,
		RunE: help,
	}
	c.register(cmd)
	cmd.AddCommand(newSensorListCmd(c), newSensorShowCmd(c), newSensorAddCmd(c), newSensorImportCmd(c),
		newSensorWithdrawCmd(c), newSensorHealthCmd(c), newSensorsDecode())
	return cmd
}

func sensorPath(id string) string { return "/v1/sensors/" + url.PathEscape(id) }

func newSensorListCmd(c *client) *cobra.Command {
	var limit int
	var after string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the sensors, in order of their ids",
		Long: `Show the sensors, in order of their ids. What -o json shows is a file for vigie
sensors import.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return errors.New("--limit: must not be negative; 0 shows all")
			}
			all := httpapi.SensorPage{Sensors: []*control.Sensor{}, Next: after}
			for first := true; first || all.Next != ""; first = false {
				size := 1000
				if limit > 0 {
					size = min(size, limit-len(all.Sensors))
				}
				if size == 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "there are more; --limit 0 shows all, --after %q goes on\n", clean(all.Next))
					break
				}
				q := url.Values{"limit": {strconv.Itoa(size)}}
				if all.Next != "" {
					q.Set("after", all.Next)
				}
				var page httpapi.SensorPage
				if err := c.get(cmd, "/v1/sensors?"+q.Encode(), &page); err != nil {
					return err
				}
				all.Sensors, all.Next = append(all.Sensors, page.Sensors...), page.Next
			}
			return c.print(cmd, all, func(w io.Writer) {
				if len(all.Sensors) == 0 {
					fmt.Fprintln(cmd.ErrOrStderr(), "no sensors yet; vigie sensors add makes one")
					return
				}
				row(w, "SENSOR", "NAME", "KIND", "ROAD", "ZONES", "OWNER", "FORMAT", "LISTS", "PURPOSES")
				for _, s := range all.Sensors {
					row(w, s.ID, s.Name, kindOf(s), s.Road, strings.Join(s.Zones, ", "), s.Owner, s.Format, limits(s.Lists), limits(s.Purposes))
				}
			})
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "how many to show; 0 shows all")
	cmd.Flags().StringVar(&after, "after", "", "begin after this sensor; `id`")
	return cmd
}

// kindOf is how a sensor is mounted.
func kindOf(s *control.Sensor) control.SensorKind {
	if s.Kind == "" {
		return control.SensorFixed
	}
	return s.Kind
}

// limits is what a sensor may be used for.
func limits(names []string) string {
	if len(names) == 0 {
		return "all"
	}
	return strings.Join(names, ", ")
}

func newSensorShowCmd(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "show SENSOR",
		Short: "Show what the registry says of a sensor",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var s control.Sensor
			if err := c.get(cmd, sensorPath(args[0]), &s); err != nil {
				return err
			}
			return c.printSensor(cmd, &s)
		},
	}
}

func (c *client) printSensor(cmd *cobra.Command, s *control.Sensor) error {
	return c.print(cmd, s, func(w io.Writer) {
		row(w, "sensor", s.ID)
		row(w, "name", s.Name)
		row(w, "kind", kindOf(s))
		if s.Kind != control.SensorMobile {
			row(w, "position", fmt.Sprintf("%.5f %.5f", s.Lat, s.Lon))
		}
		row(w, "road", s.Road)
		row(w, "direction", s.Direction)
		row(w, "zones", strings.Join(s.Zones, ", "))
		row(w, "owner", s.Owner)
		row(w, "format", said(s.Format, "recognised by the message"))
		row(w, "clock", said(s.Clock, "as the format says"))
		row(w, "time zone", s.Zone)
		row(w, "scale", said(s.Scale, "as the format says"))
		row(w, "country", s.Country)
		row(w, "lists", limits(s.Lists))
		row(w, "purposes", limits(s.Purposes))
		row(w, "version", s.Version)
	})
}

// said is a setting, or what holds without one.
func said(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}

func newSensorAddCmd(c *client) *cobra.Command {
	var in control.Sensor
	var change bool
	cmd := &cobra.Command{
		Use:   "add SENSOR",
		Short: "Add a sensor, or with --change alter the settings given",
		Long: `Add a sensor. An id that is taken is an error, so that a sensor is not overwritten
by mistake; --change alters the settings that are given and keeps the others. The
command returns when the change is effective everywhere.

--clock says what the sensor writes as the time of capture:
  utc      UTC, or a time with its offset
  local    the local time of --time-zone, without saying so
  gateway  nothing to rely on: the time of arrival counts
--list and --purpose limit what the sensor may be used for: its reads hit on no
other list. Given empty, --list "", they lift the limit.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := c.sensorToWrite(cmd, args[0], change)
			if err != nil {
				return err
			}
			for name, set := range map[string]func(){
				"name":      func() { s.Name = in.Name },
				"lat":       func() { s.Lat = in.Lat },
				"lon":       func() { s.Lon = in.Lon },
				"road":      func() { s.Road = in.Road },
				"direction": func() { s.Direction = in.Direction },
				"zone":      func() { s.Zones = given(in.Zones) },
				"owner":     func() { s.Owner = in.Owner },
				"kind":      func() { s.Kind = in.Kind },
				"format":    func() { s.Format = in.Format },
				"clock":     func() { s.Clock = in.Clock },
				"time-zone": func() { s.Zone = in.Zone },
				"scale":     func() { s.Scale = in.Scale },
				"country":   func() { s.Country = in.Country },
				"list":      func() { s.Lists = given(in.Lists) },
				"purpose":   func() { s.Purposes = given(in.Purposes) },
			} {
				if cmd.Flags().Changed(name) {
					set()
				}
			}
			var out control.Sensor
			if err := c.post(cmd, "/v1/sensors", s, &out); err != nil {
				return err
			}
			return c.printSensor(cmd, &out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", "name for people")
	f.Float64Var(&in.Lat, "lat", 0, "latitude, WGS 84 `degrees`")
	f.Float64Var(&in.Lon, "lon", 0, "longitude, WGS 84 `degrees`")
	f.StringVar(&in.Road, "road", "", "road on which it stands")
	f.StringVar(&in.Direction, "direction", "", "direction of the traffic that it sees")
	f.StringArrayVar(&in.Zones, "zone", nil, "zone to which it belongs; may be repeated")
	f.StringVar(&in.Owner, "owner", "", "service that answers for it")
	f.StringVar((*string)(&in.Kind), "kind", "", "fixed, transportable or mobile; fixed when empty")
	f.StringVar(&in.Format, "format", "", "format of its messages, such as hikvision; recognised when empty")
	f.StringVar(&in.Clock, "clock", "", "what it writes as the time: utc, local, gateway; as the format says when empty")
	f.StringVar(&in.Zone, "time-zone", "", "time zone in which it stands, such as Europe/Paris")
	f.StringVar(&in.Scale, "scale", "", "of its confidences: unit (0 to 1) or percent; as the format says when empty")
	f.StringVar(&in.Country, "country", "", "country of plates that come without one, such as FR")
	f.StringArrayVar(&in.Lists, "list", nil, "limit to a list; may be repeated; `id`")
	f.StringArrayVar(&in.Purposes, "purpose", nil, "limit to lists of a purpose; may be repeated")
	f.BoolVar(&change, "change", false, "alter the settings given of a sensor that is there")
	return cmd
}

// given are the members of a repeated flag; an empty one takes all away.
func given(members []string) []string {
	if len(members) == 1 && members[0] == "" {
		return nil
	}
	return members
}

// sensorToWrite is the sensor as it is, or an empty one under a free id.
func (c *client) sensorToWrite(cmd *cobra.Command, id string, change bool) (*control.Sensor, error) {
	quiet := *c
	quiet.output = "table" // a sensor that is not there is no result
	var old control.Sensor
	err := quiet.get(cmd, sensorPath(id), &old)
	var api *apiError
	missing := errors.As(err, &api) && api.Type == "urn:vigie:problem:no-sensor"
	switch {
	case missing && change:
		return nil, fmt.Errorf("no sensor has the id %q; without --change it is added", id)
	case missing:
		return &control.Sensor{ID: id}, nil
	case err != nil:
		return nil, err
	case !change:
		return nil, refused(fmt.Errorf("a sensor has the id %q already; --change alters its settings", id))
	}
	return &old, nil
}

func newSensorImportCmd(c *client) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Add and change the sensors that a CSV or JSON file names",
		Long: `Add and change the sensors that a CSV or JSON file names. Sensors that it does not
name stay, and so does what it does not say of one, such as the lists that it may be
used for.

CSV has a row of column names, in English or French: id (mandatory), name, lat, lon,
road, direction, zones, owner, kind, format, clock, time_zone, scale, country, lists,
purposes; ; , or tab between cells, and | between the members of zones, lists and
purposes. JSON is what vigie sensors list -o json shows, or an array of sensors.

One bad row and nothing is changed: every bad row is named, and the exit code is 2.
"-" reads standard input.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				file = f
			}
			body := bufio.NewReader(file)
			contentType := "text/csv"
			if head, _ := body.Peek(512); bytes.HasPrefix(bytes.TrimSpace(head), []byte("[")) || bytes.HasPrefix(bytes.TrimSpace(head), []byte("{")) {
				contentType = "application/json"
			}
			path := "/v1/sensors/import"
			if dryRun {
				path += "?dry_run=1"
			}
			var rep stream.ImportReport
			if err := c.do(cmd, "POST", path, contentType, body, &rep); err != nil {
				return err
			}
			return c.print(cmd, rep, func(w io.Writer) {
				fmt.Fprintf(w, "%d sensors: %d added, %d changed, %d the same\n", rep.Rows, rep.Added, rep.Changed, rep.Same)
				if rep.Applied {
					fmt.Fprintf(w, "in effect everywhere, version %d\n", rep.Version)
				} else {
					fmt.Fprintln(w, "a trial: nothing was changed")
				}
			})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be done, and change nothing")
	return cmd
}

func newSensorWithdrawCmd(c *client) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "withdraw SENSOR",
		Short: "Take a sensor out of the registry",
		Long: `Take a sensor out of the registry. Its reads are those of an unknown sensor from then
on: whether they are still accepted is a setting of the gateways.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out, err := c.remove(cmd, sensorPath(args[0]), reason)
			if err != nil {
				return err
			}
			return c.print(cmd, out, func(w io.Writer) {
				fmt.Fprintf(w, "sensor %s is out of the registry, version %d\n", clean(args[0]), out.Version)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; mandatory")
	return cmd
}

func newSensorHealthCmd(c *client) *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Show how the sensors do, as the gateway of the server knows it",
		Long: `Show how the sensors do, as the gateway of the server knows it: whether they are
silent, how many reads came in this hour against the usual of the same hour, what
their clocks are off, and what was refused. It is kept in memory: after a start of
the gateway "learning" stands beside a figure until the hour was seen on three days.

SKEW is arrival minus capture: the way, plus what the clock is behind; below zero it
is ahead. NO PLATE is the share of vehicles on which no plate was seen; a rise means
a dirty or badly lit lens.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var page httpapi.SensorHealthPage
			if err := c.get(cmd, "/v1/sensors/health", &page); err != nil {
				return err
			}
			return c.print(cmd, page, func(w io.Writer) {
				errOut := cmd.ErrOrStderr()
				fmt.Fprintf(errOut, "%d sensors heard since %s, %d silent, %d not registered, %d never heard\n", len(page.Sensors),
					page.Since.Local().Format(day), page.Silent, page.Unregistered, len(page.NeverHeard))
				if page.Spool != nil && *page.Spool > 0 {
					fmt.Fprintf(errOut, "%d reads wait on the gateway for Kafka\n", *page.Spool)
				}
				if len(page.Sensors)+len(page.NeverHeard) == 0 {
					return
				}
				row(w, "SENSOR", "STATE", "READ", "HEARTBEAT", "HOUR", "USUAL", "SKEW", "CONF", "NO PLATE", "TWICE", "REFUSED", "BECAUSE")
				for i := range page.Sensors {
					healthRow(w, &page.Sensors[i], page.At)
				}
				for _, id := range page.NeverHeard {
					row(w, id, "never heard", "", "", "", "", "", "", "", "", "", "")
				}
			})
		},
	}
}

func healthRow(w io.Writer, s *sensors.SensorHealth, now time.Time) {
	state := "ok"
	switch {
	case s.Unregistered:
		state = "not registered"
	case s.Silent:
		state = fmt.Sprintf("silent, %.0f missed", s.Missed)
	}
	usual, because := figure(s.Usual, "%.0f", 1), ""
	if s.WarmingUp {
		usual = strings.TrimSpace(usual + " learning")
	}
	if s.LastRejection != nil {
		because = strings.TrimPrefix(s.LastRejection.Field+": "+s.LastRejection.Reason, ": ")
	}
	row(w, s.ID, state, ago(now, s.LastRead), ago(now, s.LastHeartbeat), s.HourReads, usual, figure(s.Skew, "%+.1f s", 1),
		figure(s.Conf, "%.2f", 1), figure(&s.NoPlate, "%.0f %%", 100), s.Duplicates, s.Rejected, because)
}

// figure is a number that may not be known.
func figure(v *float64, format string, times float64) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf(format, *v*times)
}

// ago is how long before now t was, cut to what matters.
func ago(now, t time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", max(0, d/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	}
	return fmt.Sprintf("%d days ago", d/(24*time.Hour))
}
