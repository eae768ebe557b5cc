package registry

import (
	"context"
	"errors"
	"net"
	"sync"
)

// dialer remembers the addresses of hosts. Go's resolver reads /etc at every
// question, and there is another /etc while a build's step is in place, which
// may leave DNS out (nsswitch.conf).
type dialer struct {
	net.Dialer

	mu    sync.Mutex
	known map[string]string
}

func (d *dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.Dialer.DialContext(ctx, network, address)
	d.mu.Lock()
	before := d.known[address]
	if err == nil {
		if d.known == nil {
			d.known = map[string]string{}
		}
		d.known[address] = conn.RemoteAddr().String()
	}
	d.mu.Unlock()
	if _, unknown := errors.AsType[*net.DNSError](err); unknown && before != "" {
		return d.Dialer.DialContext(ctx, network, before)
	}
	return conn, err
}
