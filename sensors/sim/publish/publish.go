// Package publish brings the messages of simulated devices to an MQTT 5 broker. It subscribes to
// nothing.
package publish

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

// Broker is a connection to a broker, which is made anew when it is lost. Its methods may be called
// at the same time.
type Broker struct {
	cm  *autopaho.ConnectionManager
	end context.CancelFunc
}

const (
	connectWithin  = 5 * time.Second // the first time
	reconnectEvery = time.Second
)

// Connect connects to the broker at an address such as mqtt://host:1883 or mqtts://host:8883, in
// one attempt. user and password may be empty. ctx is for this call alone.
func Connect(ctx context.Context, to *url.URL, user, password string) (*Broker, error) {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	waiting, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	var mu sync.Mutex
	why := errors.New("no answer")
	cm, err := autopaho.NewConnection(life, autopaho.ClientConfig{
		ServerUrls: []*url.URL{to}, KeepAlive: 30, ConnectUsername: user, ConnectPassword: []byte(password), CleanStartOnInitialConnection: true,
		ReconnectBackoff: func(int) time.Duration { return reconnectEvery },
		OnConnectError: func(err error) {
			mu.Lock()
			defer mu.Unlock()
			why = err
			cancel()
		},
		ClientConfig: paho.ClientConfig{ClientID: "vigie-sim-" + rand.Text()[:12]},
	})
	if err != nil {
		end()
		return nil, fmt.Errorf("publish: %w", err)
	}
	b := &Broker{cm: cm, end: end}
	if cm.AwaitConnection(waiting) != nil {
		b.Close()
		mu.Lock()
		defer mu.Unlock()
		return nil, fmt.Errorf("publish: connect: %w", why)
	}
	return b, nil
}

// Close ends the connection.
func (b *Broker) Close() {
	b.end()
	<-b.cm.Done()
}

// ErrRefused says that the broker does not take the message, and would not another time.
var ErrRefused = errors.New("publish: the broker refuses the message")

// Publish returns nil once the broker has the message. After other errors than ErrRefused it may
// have it or not.
func (b *Broker) Publish(ctx context.Context, topic, contentType string, body []byte) error {
	res, err := b.cm.Publish(ctx, &paho.Publish{
		QoS: 1, Topic: topic, Payload: body, Properties: &paho.PublishProperties{ContentType: contentType},
	})
	switch {
	case res != nil && res.ReasonCode >= 0x80:
		return ErrRefused
	case err != nil:
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}
