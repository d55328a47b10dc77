package endpoint

import (
	"fmt"
	"slices"

	"drawbridge/topology"
)

// newProtocol returns the protocol of a valid Config.
func newProtocol(cfg Config) (protocol, error) {
	transports, ok := transportsOf(cfg)
	if !ok {
		return nil, fmt.Errorf("%w: unknown engine %q", ErrConfig, cfg.Engine)
	}
	if !slices.Contains(transports, cfg.Transport) {
		return nil, fmt.Errorf("%w: %s has no transport %q, it has %v", ErrConfig, cfg.Engine, cfg.Transport, transports)
	}
	if cfg.Transport == TLSOnly && cfg.TLS == nil {
		return nil, fmt.Errorf("%w: transport %q needs a TLS configuration", ErrConfig, cfg.Transport)
	}
	if cfg.Cluster {
		return newHTTP(clusterService), nil
	}
	switch cfg.Engine {
	case topology.PostgreSQL:
		return newPostgres()
	case topology.MySQL:
		return mysqlProtocol{}, nil
	case topology.Redis:
		return redisProtocol{}, nil
	case topology.MongoDB:
		return mongoProtocol{}, nil
	case topology.OpenSearch:
		return newHTTP(openSearchService), nil
	default: // transportsOf knows no other
		return newHTTP(influxService), nil
	}
}

func transportsOf(cfg Config) ([]Transport, bool) {
	separate := []Transport{TLSOnly, PlainOnly}
	negotiation := cfg.Engine.Negotiation()
	switch {
	case negotiation == topology.NegotiationUnknown:
		return nil, false
	case cfg.Cluster || negotiation == topology.SeparatePorts:
		return separate, true
	case negotiation == topology.EitherFirst:
		return append(separate, Either), true
	}
	return []Transport{InBand}, true
}
