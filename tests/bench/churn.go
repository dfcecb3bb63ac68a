// SPDX-License-Identifier: Apache-2.0

// The Go clients of tests/bench/churn, standard library only; same words and same answer as
// tests/network/churn_client.py. `serve PEM ADDRESS` is a server that speaks HTTP/2, which Python's has not.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const port = "8444"

// The figures of the journal: dial 10 s, TLS 10 s, response header 30 s, idle 30 s.
func transport(kind string, pool *x509.CertPool) *http.Transport {
	made := http.DefaultTransport.(*http.Transport).Clone()
	made.Proxy = nil
	made.TLSClientConfig = &tls.Config{RootCAs: pool}
	made.ForceAttemptHTTP2 = !strings.HasSuffix(kind, "-h1")
	if !made.ForceAttemptHTTP2 {
		made.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	if strings.HasPrefix(kind, "tuned") {
		made.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
		made.TLSHandshakeTimeout = 10 * time.Second
		made.ResponseHeaderTimeout = 30 * time.Second
		made.IdleConnTimeout = 30 * time.Second
	}
	return made
}

func now() float64 { return float64(time.Now().UnixNano()) / 1e9 }

func until(at float64) { time.Sleep(time.Duration((at - now()) * 1e9)) }

func serve(pem, address string) {
	http.HandleFunc("/", func(writer http.ResponseWriter, request *http.Request) {
		_, _ = io.Copy(io.Discard, request.Body)
		fmt.Fprint(writer, request.Proto)
	})
	listener, err := net.Listen("tcp", address)
	if err != nil {
		panic(err)
	}
	fmt.Println("serving")
	panic(http.ServeTLS(listener, nil, pem, pem))
}

func main() {
	kind := os.Args[1]
	if kind == "serve" {
		serve(os.Args[2], os.Args[3])
	}
	words := flag.NewFlagSet("churn", flag.ExitOnError)
	label := words.String("label", "x", "")
	url := words.String("url", "", "")
	ca := words.String("ca", "", "")
	components := words.Int("components", 5, "")
	interval := words.Float64("interval", 1, "")
	beats := words.Int("beats", 1, "")
	_ = words.Parse(os.Args[2:])

	*url += ":" + port
	pem, err := os.ReadFile(*ca)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	shared := transport(kind, pool)
	client := &http.Client{Transport: shared, Timeout: 30 * time.Second}

	fmt.Println("ready")
	input := bufio.NewScanner(os.Stdin)
	input.Scan()
	begin, _ := strconv.ParseFloat(strings.TrimSpace(input.Text()), 64)
	go func() {
		for input.Scan() {
			shared.CloseIdleConnections()
		}
	}()

	all := make([][][3]interface{}, *components)
	var done sync.WaitGroup
	for number := range all {
		done.Add(1)
		go func(number int) {
			defer done.Done()
			all[number] = [][3]interface{}{}
			for tick := 0; tick < *beats; tick++ {
				at := begin + 0.05*float64(number) + float64(tick)**interval
				if now() >= at+*interval {
					continue
				}
				until(at)
				start, problem := now(), ""
				path := fmt.Sprintf("%s/beat/%s/%d", *url, strings.ReplaceAll(*label, " ", "-"), number)
				answer, err := client.Post(path, "application/json", bytes.NewReader(make([]byte, 200)))
				if err == nil {
					_, err = io.Copy(io.Discard, answer.Body)
					answer.Body.Close()
				}
				if err != nil {
					problem = err.Error()
				}
				all[number] = append(all[number], [3]interface{}{start, now(), problem})
			}
		}(number)
	}
	done.Wait()
	_ = json.NewEncoder(os.Stdout).Encode(map[string]interface{}{"beats": all, "stall": 0.0})
}
