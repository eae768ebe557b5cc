package com.cloudbees.groovy.cps

/** Stands for Jenkins' annotation. */
@interface NonCPS {}
