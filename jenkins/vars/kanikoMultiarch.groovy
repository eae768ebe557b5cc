import com.cloudbees.groovy.cps.NonCPS

// All of it: a plan, a branch for each row on an agent that suits it, the merge.
Map call(Map config) {
    Map state = [:]
    onAgent(config, null) {
        state.found = source(config, null)
        state.plan = kanikoMatrix(flags(config, 'matrix'))
    }
    if (state.plan.empty) {
        return [digest: '', image: '', tags: [], images: []]
    }
    Map branches = [failFast: config.failFast == true]
    for (int i = 0; i < state.plan.rows.size(); i++) {
        Map row = state.plan.rows[i]
        branches[row.key + ' ' + row.name] = {
            onAgent(config, row) {
                source(config, state.found.GIT_COMMIT)
                withEnv(commit(state.found)) { kanikoBuild(flags(config, 'build') + flagsOf(row)) }
            }
        }
    }
    stage('build') { parallel(branches) }
    List images = []
    stage('merge') {
        onAgent(config, null) {
            for (int i = 0; i < state.plan.merges.size(); i++) {
                Map merge = state.plan.merges[i]
                Map own = [key: merge.key, tags: merge.tags ?: merge.image, platforms: merge.platforms, stashes: stashesOf(state.plan.rows, merge.key)]
                withEnv(commit(state.found)) { images << kanikoMerge(flags(config, 'merge') + own) }
            }
        }
    }
    return images[0] + [images: images]
}

// onAgent runs steps on the agent of a row, or where it plans and merges.
private void onAgent(Map config, Map row, Closure steps) {
    if (config.kubernetes) {
        podTemplate(yaml: pod(config, row)) {
            node(POD_LABEL) { steps() }
        }
        return
    }
    node(row ? row.runner : (config.agents?.get('default') ?: 'amd64')) { steps() }
}

// source checks the commit out that the first agent had: a branch may move on
// while others wait. Returns what checkout found.
private Map source(Map config, String commit) {
    if (config.checkout) {
        config.checkout.call()
        return [:]
    }
    if (!commit) {
        return checkout(scm)
    }
    return checkout([$class: 'GitSCM', branches: [[name: commit]], extensions: scm.extensions, userRemoteConfigs: scm.userRemoteConfigs])
}

// commit tells the program what is checked out where there is no git to ask, as
// in a pod.
private List commit(Map found) {
    return found.GIT_COMMIT ? ['GIT_COMMIT=' + found.GIT_COMMIT, 'GIT_URL=' + (found.GIT_URL ?: '')] : []
}

@NonCPS
private String pod(Map config, Map row) {
    String image = config.jobImage ?: 'ghcr.io/org/kaniko-multiarch:debug'
    String arch = row?.mode == 'native' ? "\n    kubernetes.io/arch: ${row.arch}" : ''
    return """\
apiVersion: v1
kind: Pod
spec:
  nodeSelector:
    kubernetes.io/os: linux${arch}
  containers:
    - name: kaniko-multiarch
      image: ${image}
      command: [sleep]
      args: ["99999999"]
"""
}

// flags are those keys that a command takes; a build takes what is no other's.
@NonCPS
private Map flags(Map config, String command) {
    List own = ['checkout', 'failFast', 'jobImage', 'kubernetes']
    List plan = ['image', 'tags', 'platforms', 'target', 'context', 'file', 'buildArgs', 'key', 'agents', 'runner',
        'builds', 'dimension', 'include', 'exclude', 'distribute', 'checkBases']
    List merge = ['annotations', 'attestations', 'ciAnnotations', 'immutableTags', 'ociMode', 'artifactType', 'subject', 'push']
    List all = ['credentials', 'credentialsId', 'insecure', 'insecureRegistry', 'registryCertificate', 'pushRetry']
    Map out = config.findAll { key, value ->
        String name = key.toString()
        if (own.contains(name)) {
            return false
        }
        if (command == 'matrix') {
            return plan.contains(name) || all.contains(name)
        }
        if (command == 'merge') {
            return merge.contains(name) || all.contains(name)
        }
        return !plan.contains(name) && (name == 'push' || !merge.contains(name))
    }
    return out + (config.kubernetes ? [container: 'kaniko-multiarch'] : [:])
}

@NonCPS
private Map flagsOf(Map row) {
    return [platform: row.platform, key: row.key, image: row.image, target: row.target ?: null, context: row.context,
        dockerfile: row.dockerfile, buildArgs: row.buildArgs?.readLines(), stash: row.artifact]
}

@NonCPS
private List stashesOf(List rows, String key) {
    return rows.findAll { it.key == key }.collect { it.artifact }
}
