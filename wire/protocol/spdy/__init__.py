"""SPDY/3.1 as Kubernetes uses it, without I/O: exec, attach and port-forward before WebSocket.

`frames` are bytes ↔ frames, `headers` the compressed header blocks, `session` who may say what when.

Four habits of the peer (moby/spdystream) shape everything here:

1. It neither sends nor reads WINDOW_UPDATE: never wait for a window (fabric8io/kubernetes-client#534).
2. Streams of one exec or one port-forward may come in any order (kubernetes#13673).
3. A stream nobody reads stalls its whole connection: keep draining a stream whose consumer is gone
   (kubernetes#126718).
4. It serves streams by five workers: never make progress of one stream depend on another (openshift/origin#4287).

And three for what we send: no HEADERS frame (its receiver blocks for ever), no type 5 or 10 and no flags on PING
or GOAWAY (it drops the connection and kubectl exits 0), no byte before the client's first frame.
"""
