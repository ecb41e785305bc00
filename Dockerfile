# The image of one node, with its store in the volume /data:
#
#   docker build --build-arg VERSION=v1.2.3 --tag rejoin .
#   docker run --publish 127.0.0.1:8080:8080 --volume rejoin:/data \
#     --env REJOIN_AUTH_MODE=none --stop-timeout 30 rejoin
#
# It listens on every address of the container, so it does not start without
# REJOIN_AUTH_MODE: the image cannot know who reaches the port, whoever runs it
# can. The stop timeout leaves room for drain.window.

FROM golang:1.26.9-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
# SQLite needs cgo; the C library is the one of the image below.
RUN CGO_ENABLED=1 go build -trimpath -ldflags "-s -w ${VERSION:+-X main.version=${VERSION}}" -o /rejoin ./cmd/rejoin

FROM debian:bookworm-slim
# By number, so that Kubernetes can see that it is not root.
RUN useradd --system --uid 10001 --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin rejoin \
	&& install --directory --owner rejoin --group rejoin --mode 0750 /data
# For rejoin tail and publish with an https address.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /rejoin /usr/local/bin/rejoin

USER 10001:10001
WORKDIR /data
VOLUME /data
# The environment wins over a configuration file: change these there.
ENV REJOIN_LISTEN=0.0.0.0:8080 \
	REJOIN_STORE_URL=sqlite:/data/rejoin.db
EXPOSE 8080
# Alive, not ready: a node that waits for its store must not be replaced.
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s CMD ["rejoin", "health", "--url", "http://127.0.0.1:8080"]
ENTRYPOINT ["rejoin"]
CMD ["serve"]
