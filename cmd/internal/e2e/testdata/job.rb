# What Rails has around the job of docs/recipes.md. Jobs are run when next_job is called,
# however long they should wait.
require "active_support/all"
require "active_job"
require "socket"

class Queue
  def enqueue(job) = JOBS << job.serialize
  def enqueue_at(job, _at) = JOBS << job.serialize
end
JOBS = []
ActiveJob::Base.queue_adapter = Queue.new
ActiveJob::Base.logger = nil
ApplicationJob = Class.new(ActiveJob::Base)

def next_job = ActiveJob::Base.execute(JOBS.shift)

Order = Struct.new(:id)
def after_commit(callback, **) = Order.define_method(:commit) { instance_exec(&callback) }

# EXAMPLE

rejoin = ENV.fetch("REJOIN_URL")
def check(what, want, got) = want == got || abort("#{what}: #{got.inspect}, want #{want.inspect}")

2.times { Order.new(7).commit } # the second one has the same key
2.times { next_job }
check("jobs after two successes", 0, JOBS.size)

broken = TCPServer.new("127.0.0.1", 0) # its connections end before an answer
Thread.new do
  loop do
    connection = broken.accept
    connection.close_write
    connection.read
  end
end
away = TCPServer.new("127.0.0.1", 0)
Order.new(8).commit
["http://127.0.0.1:#{broken.addr[1]}", "http://127.0.0.1:#{away.addr[1].tap { away.close }}", "http://nowhere.invalid"].each do |url|
  ENV["REJOIN_URL"] = url
  next_job
  check("jobs after #{url}", 1, JOBS.size)
end
ENV["REJOIN_URL"] = rejoin
next_job
check("jobs in the end", 0, JOBS.size)

begin
  PublishJob.perform_now("orders", "feed.paid", {}, "refused")
  abort("a type of the server's is not refused")
rescue RuntimeError => e
  check("jobs after a refusal", 0, JOBS.size)
  puts e.message
end
