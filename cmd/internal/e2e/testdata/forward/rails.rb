# An application with users and sessions, around the example of docs/auth.md. It has
# Rails's controllers, routes and sessions, and a small server instead of Puma.
require "socket"
require "active_support/all"
require "action_controller"

User = Struct.new(:id)

class ApplicationController < ActionController::Base
  before_action :authenticate_user!
  def current_user = session[:user] && User.new(session[:user])
  def authenticate_user! = current_user || redirect_to("/login")
end

class SessionsController < ApplicationController
  skip_before_action :authenticate_user!
  def create
    session[:user] = params[:id]
    head :no_content
  end

  def destroy
    reset_session
    head :no_content
  end
end

# EXAMPLE

routes = ActionDispatch::Routing::RouteSet.new
routes.draw do
  get "/login/:id", to: "sessions#create"
  get "/logout", to: "sessions#destroy"
  get "/rejoin", to: "rejoin#show"
end
app = Rack::Session::Pool.new(routes, key: "session")

def answer(app, socket)
  while (line = socket.gets)
    method, path, = line.split
    env = Rack::MockRequest.env_for(path, method: method)
    while (header = socket.gets.chomp) != ""
      name, value = header.split(": ", 2)
      env["HTTP_#{name.upcase.tr("-", "_")}"] = value
    end
    status, headers, = app.call(env)
    cookies = headers.delete("Set-Cookie").to_s.lines(chomp: true).map { |cookie| "Set-Cookie: #{cookie}\r\n" }
    socket.write("HTTP/1.1 #{status} \r\n#{cookies.join}#{"Content-Length: 0\r\n" if status != 204}\r\n")
  end
end

server = TCPServer.new("127.0.0.1", ARGV.first.to_i)
loop { Thread.new(server.accept) { |socket| answer(app, socket) } }
