// Three hashicorp/raft nodes in one process, in memory: what bench/raft.ts divides by.
//
// usage: hashicorp_raft CLIENTS MILLISECONDS VALUE_BYTES
//
// Prints one JSON line: commits per second and the time of one commit, p50 and p99.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// machine keeps the last value and counts.
type machine struct {
	applied uint64
	last    []byte
}

func (m *machine) Apply(log *raft.Log) any {
	m.applied++
	m.last = log.Data
	return nil
}

func (m *machine) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }

func (m *machine) Restore(in io.ReadCloser) error { return in.Close() }

type nothing struct{}

func (nothing) Persist(sink raft.SnapshotSink) error { return sink.Close() }

func (nothing) Release() {}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, "usage: hashicorp_raft CLIENTS MILLISECONDS VALUE_BYTES")
		os.Exit(2)
	}
	return value
}

func main() {
	if len(os.Args) != 4 {
		number("")
	}
	clients, runMs, valueBytes := number(os.Args[1]), number(os.Args[2]), number(os.Args[3])
	const nodes = 3
	var transports []*raft.InmemTransport
	var servers []raft.Server
	for i := 0; i < nodes; i++ {
		address, transport := raft.NewInmemTransport("")
		transports = append(transports, transport)
		servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprint("n", i)), Address: address})
	}
	for _, a := range transports {
		for i, b := range transports {
			a.Connect(servers[i].Address, b)
		}
	}
	var rafts []*raft.Raft
	for i := 0; i < nodes; i++ {
		config := raft.DefaultConfig()
		config.LocalID = servers[i].ID
		config.LogOutput = io.Discard
		config.HeartbeatTimeout = 500 * time.Millisecond
		config.ElectionTimeout = 500 * time.Millisecond
		config.LeaderLeaseTimeout = 250 * time.Millisecond
		config.CommitTimeout = 5 * time.Millisecond
		config.MaxAppendEntries = 1024
		config.BatchApplyCh = true
		config.SnapshotThreshold = 1 << 40
		store := raft.NewInmemStore()
		one, err := raft.NewRaft(config, &machine{}, store, store, raft.NewInmemSnapshotStore(), transports[i])
		if err != nil {
			panic(err)
		}
		rafts = append(rafts, one)
	}
	if err := rafts[0].BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
		panic(err)
	}
	var leader *raft.Raft
	for leader == nil {
		time.Sleep(10 * time.Millisecond)
		for _, one := range rafts {
			if one.State() == raft.Leader {
				leader = one
			}
		}
	}
	run := func(duration time.Duration) ([]time.Duration, time.Duration) {
		var wait sync.WaitGroup
		took := make([][]time.Duration, clients)
		start := time.Now()
		for c := 0; c < clients; c++ {
			wait.Add(1)
			go func() {
				defer wait.Done()
				for time.Since(start) < duration {
					began := time.Now()
					if err := leader.Apply(make([]byte, valueBytes), time.Second).Error(); err != nil {
						panic(err)
					}
					took[c] = append(took[c], time.Since(began))
				}
			}()
		}
		wait.Wait()
		elapsed := time.Since(start)
		var all []time.Duration
		for _, one := range took {
			all = append(all, one...)
		}
		sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
		return all, elapsed
	}
	run(300 * time.Millisecond)
	all, elapsed := run(time.Duration(runMs) * time.Millisecond)
	out, _ := json.Marshal(map[string]float64{
		"perSecond": float64(len(all)) / elapsed.Seconds(),
		"p50Us":     float64(all[len(all)/2].Nanoseconds()) / 1e3,
		"p99Us":     float64(all[len(all)*99/100].Nanoseconds()) / 1e3,
	})
	fmt.Println(string(out))
}
