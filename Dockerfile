# The image of one node. Its store is in the volume /data:
#
#   docker build --build-arg VERSION=v1.2.3 --tag rejoin .
#   docker run --publish 127.0.0.1:8080:8080 --volume rejoin:/data \
#     --env REJOIN_AUTH_MODE=none --stop-timeout 30 rejoin
#
# The node listens on every address of the container, so it does not start without
# REJOIN_AUTH_MODE: the image cannot know who reaches the port, but you can. The
# stop timeout leaves time for drain.window.

FROM golang:1.26.9-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
# SQLite needs cgo. This image has the same C library as the one below. The tag is
# explained in the Makefile.
RUN CGO_ENABLED=1 go build -trimpath -tags grpcnotrace -ldflags "-s -w ${VERSION:+-X main.version=${VERSION}}" -o /rejoin ./cmd/rejoin

FROM debian:bookworm-slim
# The user is a number, so that Kubernetes can see that it is not root.
RUN useradd --system --uid 10001 --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin rejoin \
	&& install --directory --owner rejoin --group rejoin --mode 0750 /data
# rejoin tail and publish need these for https addresses.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /rejoin /usr/local/bin/rejoin

USER 10001:10001
WORKDIR /data
VOLUME /data
# The environment overrides a configuration file: change these values there.
ENV REJOIN_LISTEN=0.0.0.0:8080 \
	REJOIN_STORE_URL=sqlite:/data/rejoin.db
EXPOSE 8080
# Check that the node is alive, not that it is ready: a node that waits for its
# store must not be replaced.
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s CMD ["rejoin", "health", "--url", "http://127.0.0.1:8080"]
ENTRYPOINT ["rejoin"]
CMD ["serve"]
