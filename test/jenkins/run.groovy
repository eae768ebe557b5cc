// usage: groovy -cp test/jenkins test/jenkins/run.groovy LIBRARY JENKINSFILE REPOSITORY DIRECTORY
//
// Runs a Jenkinsfile with the steps of a library. Jenkins' own steps are stood in
// for by small ones that do the same on this machine: agents are directories,
// branches of parallel run one after the other. What was called is in
// DIRECTORY/log, a line a step.
def (library, jenkinsfile, repository, work) = args.collect { new File(it).absoluteFile }
def log = new File(work, 'log')
def here = [work]
def variables = [[:]]
def stashes = [:]
def agents = 0
def b = new Binding()

def say = { String text -> log << text + '\n' }
def within = { List stack, Object value, Closure body ->
    stack << value
    try { body() } finally { stack.pop() }
}
def run = { List command, Map more = [:] ->
    def process = new ProcessBuilder(command.collect { it.toString() }).directory(here.last())
        .redirectError(ProcessBuilder.Redirect.INHERIT)
    variables.each { process.environment().putAll(it) }
    def started = process.start()
    def out = started.inputStream.text
    if (started.waitFor() != 0) {
        throw new IllegalStateException("script returned exit code ${started.exitValue()}: ${command.last()}")
    }
    return out
}
def copy = { File from, File to ->
    from.eachFileRecurse { f ->
        def target = new File(to, from.toURI().relativize(f.toURI()).path)
        f.directory ? target.mkdirs() : (target.parentFile.mkdirs() & target.withOutputStream { it << f.bytes } as boolean)
    }
}

b.scm = [extensions: [], userRemoteConfigs: [[url: repository.path]]]
b.POD_LABEL = 'pod'
b.node = { Object label, Closure body ->
    say "node $label"
    def workspace = new File(work, "agent-${++agents}/workspace/job")
    workspace.mkdirs()
    within(here, workspace) { within(variables, [BUILD_TAG: 'jenkins-app-7', WORKSPACE: workspace.path], body) }
}
b.podTemplate = { Map m, Closure body ->
    say 'pod ' + m.yaml.replaceAll(/\s+/, ' ')
    body()
}
b.container = { String name, Closure body ->
    say "container $name"
    body()
}
b.stage = { String name, Closure body ->
    say "stage $name"
    body()
}
b.parallel = { Map branches -> branches.each { name, body -> if (body instanceof Closure) { body() } } }
b.checkout = { Map from ->
    run(['git', 'clone', '-q', from.userRemoteConfigs[0].url, '.'])
    if (from.branches) {
        run(['git', 'checkout', '-q', from.branches[0].name])
    }
    def commit = run(['git', 'rev-parse', 'HEAD']).trim()
    say "checkout $commit"
    if (System.getenv('KMA_TEST_MOVING')) {
        within(here, repository) { run(['git', '-c', 'user.name=a', '-c', 'user.email=a@example.com', 'commit', '-q', '--allow-empty', '-m', 'more']) }
    }
    return [GIT_COMMIT: commit, GIT_URL: from.userRemoteConfigs[0].url]
}
b.pwd = { Map m -> here.last().path + (m.tmp ? '@tmp' : '') }
b.dir = { String path, Closure body ->
    def target = new File(path).absolute ? new File(path) : new File(here.last(), path)
    target.mkdirs()
    within(here, target, body)
}
b.deleteDir = { here.last().deleteDir() }
b.stash = { Map m ->
    if (stashes[m.name]) { throw new IllegalStateException("the stash ${m.name} is there already") }
    stashes[m.name] = new File(work, "stash/${m.name}")
    copy(here.last(), stashes[m.name])
    if (!stashes[m.name].directory) { throw new IllegalStateException('No files included in stash') }
    say "stash ${m.name}"
}
b.unstash = { String name ->
    if (!stashes[name]) { throw new IllegalStateException("No such saved stash '$name'") }
    copy(stashes[name], here.last())
}
b.usernamePassword = { Map m -> m }
b.withCredentials = { List list, Closure body ->
    def bound = [:]
    list.each {
        say "credentials ${it.credentialsId} ${it.usernameVariable} ${it.passwordVariable}"
        bound[it.usernameVariable] = 'user'
        bound[it.passwordVariable] = 'password'
    }
    within(variables, bound, body)
}
b.withEnv = { List list, Closure body ->
    list.each { say "env $it" }
    within(variables, list.collectEntries { it.split('=', 2) as List }, body)
}
b.sh = { Map m ->
    say "sh ${m.script}"
    here.last().mkdirs()
    run(['sh', '-xc', m.script])
}
b.echo = { Object text -> say "echo $text" }

def shell = new GroovyShell(this.class.classLoader, b)
new File(library, 'vars').eachFileMatch(~/.*\.groovy/) { f ->
    def script = shell.parse(f)
    b.setVariable(f.name - '.groovy', { Object[] a -> script.call(*a) })
}
shell.evaluate(jenkinsfile.text.replaceAll(/(?m)^@Library\(.*\) _$/, ''))
