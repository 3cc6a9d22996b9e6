module github.com/batchconn/batchconn/bench

go 1.26.0

require (
	github.com/batchconn/batchconn v0.0.0
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
)

replace github.com/batchconn/batchconn => ../
