import com.cloudbees.groovy.cps.NonCPS

// Runs the program here, a flag for each key, and returns what it prints.
String call(String command, Map config) {
    String line = commandLine(command, config)
    Map found = [:]
    withCredentials(logins(config)) {
        if (config.container) {
            container(config.container) { found.text = sh(script: line, returnStdout: true) }
        } else {
            found.text = sh(script: line, returnStdout: true)
        }
    }
    return found.text.trim()
}

// logins binds each user name and password to the variables that the program
// reads for that registry.
private List logins(Map config) {
    List ids = config.credentials ? namesOf(config.credentials) : []
    List out = []
    for (String registry in ids) {
        out << login(registry, config.credentials[registry])
    }
    if (config.credentialsId) {
        out << login(registryOf(config), config.credentialsId)
    }
    return out
}

private Object login(String registry, Object id) {
    String variable = 'KANIKO_' + registry.toUpperCase().replaceAll('[^A-Z0-9]', '_')
    return usernamePassword(credentialsId: "${id}".toString(), usernameVariable: variable + '_USER', passwordVariable: variable + '_PASSWORD')
}

@NonCPS
private List namesOf(Map map) {
    return map.keySet().collect { it.toString() }
}

@NonCPS
private String registryOf(Map config) {
    String name = values(config.image ?: config.tags ?: config.destination ?: '')[0] ?: ''
    String first = name.contains('/') ? name.substring(0, name.indexOf('/')) : ''
    return first == 'localhost' || first.matches('.*[.:].*') ? first : 'docker.io'
}

// commandLine quotes every flag as a whole: the shell sees no value.
@NonCPS
private String commandLine(String command, Map config) {
    List own = ['agents', 'container', 'credentials', 'credentialsId', 'stash', 'stashes']
    List words = ['kaniko-multiarch', command]
    config.each { key, value ->
        if (value != null && !own.contains(key.toString())) {
            String flag = '--' + key.toString().replaceAll('([A-Z])', '-$1').toLowerCase() + '='
            values(value).each { words << "'" + (flag + it).replace("'", "'\\''") + "'" }
        }
    }
    return words.join(' ')
}

@NonCPS
private List values(Object value) {
    if (value instanceof Map) {
        return value.collect { key, v -> "${key}=${v}".toString() }
    }
    return value instanceof Collection ? value.collect { it.toString() } : [value.toString()]
}
