// Runs the real Jenkinsfile as Jenkins would, with steps that are recorded instead of done.
//
// It knows the part of Declarative Pipeline that the Jenkinsfile uses and refuses everything else, so
// that a mistyped directive or step fails here as it would on a controller: `sh` outside a node,
// a credential that does not exist or is of another kind, an answer of somebody who is not asked.
//
//   groovy jenkins.groovy request.json
//
// The request has scenarios, each with the text of a Jenkinsfile, and the text of a job-dsl script; the answer
// (JSON on standard output) has what happened in each scenario, and the methods that the script calls.
import groovy.json.JsonOutput
import groovy.json.JsonSlurper

/** A build that ends before its end: FAILURE, or ABORTED. */
class Ended extends RuntimeException {
    String result
    Ended(String result, String message) { super(message); this.result = result }
}

/** The agent is gone: what `retry(conditions: [agent(), nonresumable()])` is for. */
class Lost extends Ended {
    Lost() { super('ABORTED', 'the agent was lost') }
}

/** One build: what it was given, what it did. */
class Build {
    Map scenario
    Script script
    List events = []
    Map env = [:]
    List stages = []
    String node
    /** The limits around what runs now, in minutes, outermost first. */
    List limits = []
    String result = 'SUCCESS'
    String description
    /** The agent of the node that surrounds what runs now is gone. */
    boolean lost

    void note(Map event) { events << ([stage: stages ? stages.last() : ''] + event) }

    Map inside(Map variables, Closure body) {
        Map before = new LinkedHashMap(env)
        env.putAll(variables)
        try { return [value: body()] } finally {
            // What a step sets itself (env.TAG = ...) stays; what surrounds it goes.
            variables.keySet().each { before.containsKey(it) ? env.put(it, before[it]) : env.remove(it) }
        }
    }

    Object onNode(String label, Closure body) {
        String before = node
        node = label
        lost = false
        note(event: 'agent', label: label)
        // What the controller sets for all builds is in the environment of its agents.
        try { return inside(scenario.controller, body).value } finally {
            node = before
            lost = false
        }
    }

    Object limited(Map limit, Closure body) {
        limits << limit.time * [MINUTES: 1, HOURS: 60, DAYS: 1440][limit.unit]
        try { return body() } finally { limits.remove(limits.size() - 1) }
    }

    /** Runs a block of steps: its names mean the steps, not the directives that surround it. */
    Object steps(Closure body) {
        body.delegate = script
        body.resolveStrategy = Closure.DELEGATE_ONLY
        return body()
    }

    void needNode(String step) {
        if (node == null) { throw new Ended('FAILURE', "${step} needs a node: there is no agent here") }
        // Whatever runs on it from now on fails too, also what a post condition does.
        if (lost) { throw new Lost() }
    }

    Map credential(String id, String kind) {
        String real = scenario.credentials[id]
        if (real == null) { throw new Ended('FAILURE', "Could not find credentials entry with ID '${id}'") }
        if (kind != null && kind != real) { throw new Ended('FAILURE', "'${id}' is a ${real}, not a ${kind}") }
        note(event: 'credential', id: id)
        return [id: id, kind: real]
    }
}

/** The steps that the Jenkinsfile may use; any other name is an error, as in Jenkins. */
abstract class Steps extends Script {
    Build getBuild() { binding.getVariable('build') }

    Object getProperty(String name) {
        switch (name) {
            case 'env': return new Expando() {
                Object getProperty(String key) { Steps.this.build.env[key] }
                void setProperty(String key, Object value) { Steps.this.build.env[key] = value?.toString() }
            }
            case 'params': return build.scenario.params
            case 'scm': return 'scm'
            case 'currentBuild': return new Expando() {
                void setProperty(String key, Object value) {
                    assert key == 'description' : "the harness knows no currentBuild.${key}"
                    Steps.this.build.description = value
                }
            }
            case 'build': return binding.getVariable('build')
            default: return super.getProperty(name)
        }
    }

    Object methodMissing(String name, Object arguments) { throw new Ended('FAILURE', "No such DSL method '${name}'") }

    void pipeline(Closure body) { new Pipeline(build).run(body) }

    Object sh(String text) { sh(script: text) }
    Object sh(Map arguments) {
        build.needNode('sh')
        assert arguments.keySet() - ['script', 'returnStatus', 'returnStdout', 'label'] == [] as Set
        String text = arguments.script
        Map rule = build.scenario.sh.find { text =~ it.match && it.lost != 0 }
        int status = rule ? rule.status : 0
        build.note(event: 'sh', script: text, status: status, env: new LinkedHashMap(build.env), limits: build.limits.collect())
        if (rule?.lost) {
            rule.lost--
            build.lost = true
            throw new Lost()
        }
        if (rule?.abort) { throw new Ended('ABORTED', 'Timeout has been exceeded') }
        if (arguments.returnStatus) { return status }
        if (status != 0) { throw new Ended('FAILURE', "script returned exit code ${status}") }
        return arguments.returnStdout ? "${rule?.stdout ?: ''}\n".toString() : null
    }
    Map checkout(Object scm) {
        build.needNode('checkout')
        build.note(event: 'checkout')
        return [GIT_COMMIT: build.scenario.commit]
    }
    void error(String text) { throw new Ended('FAILURE', text) }
    /** The one who answers is an administrator or is asked; else it waits until its time is over. */
    String input(Map of) {
        assert of.keySet() == ['message', 'ok', 'submitter', 'submitterParameter'] as Set
        build.note(event: 'input', message: of.message, submitter: of.submitter, holdsAgent: build.node != null,
            limits: build.limits.collect())
        String answers = build.scenario.input
        if (answers != 'admin' && !(answers in of.submitter.toString().tokenize(','))) {
            throw new Ended('ABORTED', 'Rejected or not answered in time')
        }
        return answers
    }
    void echo(String text) { build.note(event: 'echo', text: text) }
    void archiveArtifacts(Map of) {
        build.needNode('archiveArtifacts')
        build.note(event: 'archive', files: of.artifacts, empty: of.allowEmptyArchive)
    }
    Map httpRequest(Map of) {
        assert of.keySet() == ['url', 'httpMode', 'contentType', 'timeout', 'quiet', 'validResponseCodes', 'requestBody'] as Set
        build.note(event: 'http', url: of.url, body: of.requestBody, quiet: of.quiet, onAgent: build.node != null)
        if (build.scenario.webhook == 'broken') { throw new IllegalStateException('Fail: the returned code 500') }
        return [status: 200]
    }
    void catchError(Map of, Closure body) {
        assert of.buildResult == 'SUCCESS' && of.stageResult == 'SUCCESS' : 'the harness knows one that changes no result'
        try { body() } catch (Exception caught) { build.note(event: 'caught', message: of.message) }
    }
    void junit(String files) {
        build.needNode('junit')
        build.note(event: 'junit', files: files)
    }
    Object script(Closure body) { body() }
    Object node(String label, Closure body) { build.onNode(label, body) }
    Object timeout(Map limit, Closure body) {
        build.note(event: 'timeout', limit: limit)
        return build.limited(limit, body)
    }
    Map usernamePassword(Map of) { of + [kind: 'usernamePassword'] }
    Map file(Map of) { of + [kind: 'file'] }
    Map string(Map of) { of + [kind: 'string'] }
    Object withCredentials(List bindings, Closure body) {
        Map variables = [:]
        bindings.each { Map bound ->
            build.credential(bound.credentialsId, bound.kind)
            if (bound.kind == 'usernamePassword') {
                variables[bound.usernameVariable] = "user of ${bound.credentialsId}".toString()
                variables[bound.passwordVariable] = "password of ${bound.credentialsId}".toString()
            } else {
                variables[bound.variable] = build.scenario.secrets[bound.credentialsId] ?: "${bound.kind} ${bound.credentialsId}".toString()
            }
        }
        return build.inside(variables, body).value
    }
}

/** Collects the calls of a block whose names are known beforehand: name -> list of arguments. */
class Block {
    Set known
    Map calls = [:]
    Block(List known) { this.known = known as Set }
    static Map read(Closure body, List known) {
        Block block = new Block(known)
        body.delegate = block
        body.resolveStrategy = Closure.DELEGATE_ONLY
        body()
        return block.calls
    }
    Object invokeMethod(String name, Object arguments) {
        if (!known.contains(name)) { throw new Ended('FAILURE', "Undefined section or option \"${name}\"; known here: ${known}") }
        calls.get(name, []) << (arguments as List)
        return null
    }
    /** What stands in the arguments of an option and is known when it is read. */
    static Object env
    Object getProperty(String name) {
        if (name == 'env') { return Block.@env }
        if (name == 'calls' || name == 'known') { return this.@"$name" }
        // `agent none` and the like: a name without arguments.
        return name
    }
}

/** The assignments of an `environment` block. */
class Assignments {
    Build build
    Map values = [:]
    static Map read(Build build, Closure body) {
        Assignments block = new Assignments(build: build)
        body.delegate = block
        body.resolveStrategy = Closure.DELEGATE_FIRST
        body()
        return block.@values
    }
    void setProperty(String name, Object value) {
        if (name == 'build') { this.@build = value } else { this.@values[name] = value.toString() }
    }
    Object getProperty(String name) {
        if (name == 'build') { return this.@build }
        return this.@values.containsKey(name) ? this.@values[name] : this.@build.script.getProperty(name)
    }
    String credentials(String id) {
        Map found = this.@build.credential(id, null)
        if (found.kind == 'usernamePassword') { throw new Ended('FAILURE', 'the harness knows credentials() of files and strings') }
        return "${found.kind} ${id}"
    }
}

/** The conditions of a `when` block. */
class When {
    Build build
    List conditions = []
    boolean beforeAgent = false
    static When read(Build build, Closure body) {
        When block = new When(build: build)
        body.delegate = block
        body.resolveStrategy = Closure.DELEGATE_ONLY
        body()
        return block
    }
    void beforeAgent(boolean value) { this.@beforeAgent = value }
    void branch(String name) { conditions << { build.scenario.branch == name } }
    void changeRequest() { conditions << { build.scenario.change } }
    void expression(Closure body) { conditions << { build.steps(body) } }
    void not(Closure body) {
        When inner = read(build, body)
        conditions << { !inner.holds() }
    }
    boolean holds() { conditions.every { it() } }
}

class Pipeline {
    static final List STAGE = ['agent', 'when', 'options', 'environment', 'steps', 'stages', 'parallel', 'failFast', 'post']
    static final List CONDITIONS = ['always', 'changed', 'fixed', 'regression', 'aborted', 'failure', 'success',
                                    'unstable', 'unsuccessful', 'cleanup']
    static final List OPTIONS = ['disableConcurrentBuilds', 'buildDiscarder', 'timeout', 'timestamps', 'skipDefaultCheckout', 'retry']
    Build build
    /** What runs now is one of several stages side by side. */
    boolean beside
    Pipeline(Build build) { this.build = build }

    void run(Closure body) {
        Map top = once(Block.read(body, ['agent', 'options', 'parameters', 'environment', 'stages', 'post']))
        Block.@env = build.env
        Map limit = options(top.options).timeout[0][0]
        parameters(top.parameters)
        assert top.agent == 'none' : 'the harness expects stages that name their agents'
        try {
            build.inside(top.environment ? Assignments.read(build, top.environment) : [:]) {
                build.limits << limit.time * [HOURS: 60, DAYS: 1440][limit.unit]
                Ended first = null
                try {
                    stages(top.stages)
                } catch (Ended ended) {
                    build.result = ended.result
                    first = ended
                    build.note(event: 'ended', result: ended.result, message: ended.message)
                }
                Ended last = post(top.post, build.result, first)
                if (last != null) { build.result = last.result }
            }
        } catch (Ended ended) {
            build.result = 'FAILURE'
            build.note(event: 'ended', result: 'FAILURE', message: "in post: ${ended.message}".toString())
        }
    }

    static Map once(Map calls) {
        calls.collectEntries { name, all ->
            if (all.size() != 1) { throw new Ended('FAILURE', "Multiple occurrences of the ${name} section") }
            [(name): all[0].size() == 1 ? all[0][0] : all[0]]
        }
    }

    void parameters(Closure body) {
        Block.read(body, ['string']).string.each { List call ->
            Map it = call[0]
            build.note(event: 'parameter', name: it.name, value: it.defaultValue)
            if (!build.scenario.params.containsKey(it.name)) { build.scenario.params[it.name] = it.defaultValue }
        }
    }

    Map options(Closure body) {
        if (body == null) { return [:] }
        // buildDiscarder(logRotator(...)) has a call in its arguments, which the block answers too.
        Map calls = Block.read(body, OPTIONS + ['logRotator', 'agent', 'nonresumable'])
        calls.each { name, all -> build.note(event: 'option', name: name, arguments: all[0].findAll { it != null }) }
        return calls
    }

    void stages(Closure body) { named(body).each { List call -> stage(call[0], call[1]) } }

    /** The stages of a block, each of which has a name of its own. */
    static List named(Closure body) {
        List found = Block.read(body, ['stage']).stage
        List names = found.collect { it[0] }
        if (names.toUnique() != names) { throw new Ended('FAILURE', "Duplicate stage name: ${names}") }
        return found
    }

    /** What Declarative says no to before a build begins (its ModelValidatorImpl). */
    void validate(String name, Map parts) {
        if (parts.parallel && parts.agent) { throw new Ended('FAILURE', "${name}: \"agent\" is not allowed beside \"parallel\"") }
        if (parts.failFast && !parts.parallel) { throw new Ended('FAILURE', "${name}: \"failFast\" is for stages side by side") }
        if (parts.parallel && beside) { throw new Ended('FAILURE', "${name}: parallel stages cannot be nested") }
    }

    void stage(String name, Closure body) {
        Map parts = once(Block.read(body, STAGE))
        assert ['steps', 'stages', 'parallel'].count { parts.containsKey(it) } == 1 : "stage ${name} has one of steps, stages, parallel"
        validate(name, parts)
        When condition = parts.when ? When.read(build, parts.when) : null
        build.stages << name
        try {
            Map given = options(parts.options)
            Closure inside = { whole(parts, condition, given.containsKey('skipDefaultCheckout')) }
            Closure tried = given.retry ? { retried(given.retry[0][0].count, inside) } : inside
            // A limit of a stage runs from here: while it is asked and while it waits for an agent.
            if (given.timeout) { build.limited(given.timeout[0][0], tried) } else { tried() }
        } finally {
            build.stages.pop()
        }
    }

    void retried(int count, Closure body) {
        try { body() } catch (Lost lost) {
            if (count < 2) { throw lost }
            build.note(event: 'retry')
            retried(count - 1, body)
        }
    }

    void whole(Map parts, When condition, boolean skipCheckout) {
        if (condition?.beforeAgent && !condition.holds()) { skipped(); return }
        Closure rest = {
            if (condition != null && !condition.holds()) { skipped(); return }
            build.note(event: 'start')
            Map variables = parts.environment ? Assignments.read(build, parts.environment) : [:]
            build.inside(variables) { work(parts) }
        }
        if (parts.agent) {
            String label = Block.read(parts.agent, ['label']).label[0][0]
            build.onNode(label) {
                if (!skipCheckout) { build.script.checkout('scm') }
                rest()
            }
        } else {
            rest()
        }
    }

    void work(Map parts) {
        String result = 'SUCCESS'
        Ended ended = null
        try {
            if (parts.parallel) { branches(parts) } else if (parts.stages) { stages(parts.stages) } else { build.steps(parts.steps) }
        } catch (Ended it) {
            result = it.result
            ended = it
            build.note(event: 'failed', result: result, message: it.message)
        }
        ended = post(parts.post, result, ended)
        if (ended != null) { throw ended }
    }

    /** One branch after the other; with failFast, one that fails ends those that have not begun. */
    void branches(Map parts) {
        Ended first = null
        beside = true
        named(parts.parallel).each { List call ->
            if (first != null && parts.failFast) { return }
            build.note(event: 'branch', name: call[0])
            try { stage(call[0], call[1]) } catch (Ended ended) { first = first ?: ended }
        }
        beside = false
        if (first != null) { throw first }
    }

    void skipped() { build.note(event: 'skipped') }

    /**
     * Runs the conditions that hold. As in Declarative (its ModelInterpreter), one that fails keeps no other from
     * running, and what went wrong first is what the stage ends with; the returned error is that one.
     */
    Ended post(Closure body, String result, Ended first) {
        if (body == null) { return first }
        Map conditions = once(Block.read(body, CONDITIONS))
        boolean wasBad = build.scenario.previous in ['FAILURE', 'UNSTABLE']
        CONDITIONS.each {
            // What an earlier condition did to the result is seen by the later ones.
            String now = first ? first.result : result
            Map holds = [always: true, cleanup: true, success: now == 'SUCCESS', failure: now == 'FAILURE',
                         aborted: now == 'ABORTED', unstable: now == 'UNSTABLE', unsuccessful: now != 'SUCCESS',
                         changed: build.scenario.previous != now, fixed: now == 'SUCCESS' && wasBad,
                         regression: now != 'SUCCESS' && !wasBad]
            if (conditions.containsKey(it) && holds[it]) {
                try { build.steps(conditions[it]) } catch (Ended ended) {
                    build.note(event: 'post failed', condition: it, message: ended.message)
                    first = first ?: ended
                }
            }
        }
        return first
    }
}

/** Records which methods a job-dsl script calls, as paths. */
class Recorder {
    List paths
    String at = ''
    Object invokeMethod(String name, Object arguments) {
        List given = arguments as List
        String path = at ? "${at}/${name}".toString() : name
        Closure body = given && given.last() instanceof Closure ? given.last() : null
        paths << [path: path, arguments: given.findAll { !(it instanceof Closure) }]
        if (body != null) {
            body.delegate = new Recorder(paths: paths, at: path)
            body.resolveStrategy = Closure.DELEGATE_ONLY
            body()
        }
        return null
    }
}

abstract class Job extends Script {
    Object methodMissing(String name, Object arguments) {
        new Recorder(paths: binding.getVariable('paths')).invokeMethod(name, arguments)
    }
}

/** Compiles a script; one text is compiled once. */
Map<String, Class> compiled = [:]
Closure<Script> load = { String text, Class base, Map variables ->
    if (!compiled.containsKey(text)) {
        def settings = new org.codehaus.groovy.control.CompilerConfiguration(scriptBaseClass: base.name)
        compiled[text] = new GroovyShell(base.classLoader, new Binding(), settings).parse(text, 'Jenkinsfile').getClass()
    }
    org.codehaus.groovy.runtime.InvokerHelper.createScript(compiled[text], new Binding(variables))
}

Map request = new JsonSlurper().parse(new File(args[0]))
List runs = request.scenarios.collect { Map scenario ->
    Build build = new Build(scenario: scenario)
    build.env = [BRANCH_NAME: scenario.branch, JOB_NAME: 'keyrack/main', BUILD_NUMBER: '12',
                 BUILD_URL: 'https://ci.example.org/job/keyrack/12/']
    if (scenario.change) { build.env.CHANGE_ID = '7' }
    build.script = load(scenario.jenkinsfile, Steps, [build: build])
    try {
        build.script.run()
    } catch (Ended ended) {
        build.result = ended.result
        build.note(event: 'refused', message: ended.message)
    }
    [name: scenario.name, result: build.result, description: build.description, events: build.events]
}
List paths = []
load(request.jobs, Job, [paths: paths]).run()
println JsonOutput.toJson([runs: runs, jobs: paths])
