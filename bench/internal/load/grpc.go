//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "google.golang.org/grpc/health/grpc_health_v1"
)

// grpcClient is a client that calls health.v1.Check by grpc-go, with several calls under way on its connection.
type grpcClient struct {
	*group
	conn *grpc.ClientConn
	api  api.HealthClient
}

func newGRPC(g *group) (*grpcClient, error) {
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		return dialer(time.Time{}).DialContext(ctx, "tcp", address)
	}
	conn, err := grpc.NewClient("passthrough:///"+g.Address, grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		return nil, err
	}
	return &grpcClient{g, conn, api.NewHealthClient(conn)}, nil
}

func (c *grpcClient) prepare() error { return c.call() }

func (c *grpcClient) run() error {
	errs := make([]error, c.Streams)
	var calls sync.WaitGroup
	for i := range errs {
		calls.Go(func() {
			for sent := time.Now(); errs[i] == nil && sent.Before(c.End); {
				if errs[i] = c.call(); errs[i] == nil {
					sent = c.answered(sent)
				}
			}
		})
	}
	calls.Wait()
	return errors.Join(errs...)
}

func (c *grpcClient) call() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := c.api.Check(ctx, &api.HealthCheckRequest{})
	if err == nil && resp.Status != api.HealthCheckResponse_SERVING {
		err = fmt.Errorf("the answer is %v", resp.Status)
	}
	return err
}

func (c *grpcClient) close() { c.conn.Close() }
